"""Gradients of one size, larger for tasks that learn slowly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from transfer.strategies.base import GramianBalance
from transfer.strategies.registry import BALANCES
from transfer.strategies.weighing import check_range, losses_for


@BALANCES.register("gradnorm")
class GradNorm(GramianBalance):
    """Σ_t w_t L_t with learned w: the norms of the weighted gradients are to follow the tasks' pace.

    With G_t = w_t ‖∇L_t‖ on the last shared layer, Ḡ its mean over the tasks, and r_t = L̃_t / mean L̃ the relative
    inverse training rate, L̃_t = L_t / L_t(0), the weights lessen

        Σ_t |G_t − Ḡ r_t^α|,    whose derivative by w_t is sign(G_t − Ḡ r_t^α) ‖∇L_t‖,

    as the target Ḡ r_t^α is taken as a constant (Chen et al. 2018, "GradNorm", equations 1 and 2, algorithm 1;
    Vandenhende 2022, equation 3.7). A step is made with the weights w(t) that it found; then they become
    w(t + 1) by an optimiser of their own, and are scaled to Σ_t w_t = T. They also weigh the parameters of
    the tasks alone, as they weigh the losses. When only some tasks have labels in a batch, only these are
    compared, and share out among them what weight they had together; L_t(0) is the loss of the first batch with
    labels of the task.

    Args:
        tasks: names of the tasks.
        alpha: α, the strength with which paces are drawn together.
        lr: learning rate of the weights.
        optimizer: that of the weights: adam, or sgd, which depends on the gradients' size.

    Raises:
        UserError: a number is out of its range.
    """

    level = "last"
    scale_heads = True
    needs_losses = True

    def __init__(self, tasks: Sequence[str], alpha: float = 1.5, lr: float = 0.025,
                 optimizer: Literal["adam", "sgd"] = "adam") -> None:
        super().__init__(tasks)
        check_range("alpha", alpha)
        check_range("lr", lr)
        self.alpha = alpha
        self.lr = lr
        self.optimizer = optimizer
        zeros = torch.zeros(len(self.tasks), dtype=torch.float64)
        self.register_buffer("task_weights", torch.ones_like(zeros))
        self.register_buffer("first_losses", zeros.clone())
        self.register_buffer("seen", torch.zeros(len(self.tasks), dtype=torch.bool))
        for name in ("steps", "mean", "square"):  # of Adam
            self.register_buffer(name, zeros.clone())

    def weights(self, gramian: Tensor, losses: Tensor | None = None) -> Tensor:
        rows = torch.tensor(self.rows, device=self.seen.device)
        losses = losses_for(self, losses, "gradnorm").detach().to(self.task_weights)
        new = rows[~self.seen[rows]]
        self.first_losses[new] = losses[~self.seen[rows]]
        self.seen[new] = True
        weights = self.task_weights[rows]
        self._update(rows, weights, gramian.detach().diagonal().clamp(min=0).sqrt().to(weights), losses)
        return weights.to(gramian)

    def _update(self, rows: Tensor, weights: Tensor, norms: Tensor, losses: Tensor) -> None:
        first = self.first_losses[rows]
        ratios = torch.where(first > 0, losses / first, 1.0).clamp(min=0)
        mean = ratios.mean()
        rates = ratios / mean if mean > 0 else torch.ones_like(ratios)
        lengths = weights * norms
        gradient = (lengths - lengths.mean() * rates**self.alpha).sign() * norms
        after = (weights - self.lr * self._step(rows, gradient)).clamp(min=0)
        total = after.sum()
        self.task_weights[rows] = after * (weights.sum() / total) if total > 0 else weights

    def _step(self, rows: Tensor, gradient: Tensor) -> Tensor:
        """What the optimiser makes of a gradient; each task has its own count of steps."""
        if self.optimizer == "sgd":
            return gradient
        self.steps[rows] += 1
        self.mean[rows] += 0.1 * (gradient - self.mean[rows])
        self.square[rows] += 0.001 * (gradient**2 - self.square[rows])
        mean = self.mean[rows] / (1 - 0.9 ** self.steps[rows])
        square = self.square[rows] / (1 - 0.999 ** self.steps[rows])
        return mean / (square.sqrt() + 1e-8)
