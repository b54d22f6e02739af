"""FAMO."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from transfer.strategies._loss_values import at_least, labelled, of_tasks
from transfer.strategies.base import LossBalance
from transfer.strategies.registry import BALANCES

EPSILON = 1e-8
BETAS, ADAM_EPSILON = (0.9, 0.999), 1e-8


@BALANCES.register("famo")
class Famo(LossBalance):
    """c Σ_t z_t log(L_t − b_t), z = softmax(w), 1 / c = Σ_t z_t / (L_t − b_t): all fall at one rate.

    c is a constant for the gradient, which makes it a convex combination of the tasks' gradients. After
    the step the losses L′ of the same batch are computed again, and w takes a step of Adam along
    (∂z/∂w)ᵀ δ with δ = log(L − b) − log(L′ − b), so that what fell less weighs more. Tasks without labels
    in the batch keep their w and its moments.
    Source: Liu et al. 2023 (FAMO), algorithm 2.

    Args:
        tasks: names of the tasks.
        lr: learning rate of w.
        weight_decay: γ, of w; 0.001 in the paper, 0.00001 in its program.
        min_losses: lower bounds b of the losses by task; 0 for those not named.
    """

    looks_again = True
    separable = False

    def __init__(self, tasks: Sequence[str], lr: float = 0.025, weight_decay: float = 1e-3,
                 min_losses: dict[str, float] | None = None) -> None:
        super().__init__(tasks)
        self.lr, self.weight_decay = at_least("lr", lr), at_least("weight_decay", weight_decay)
        count = len(self.tasks)
        self.register_buffer("min_losses", of_tasks(self.tasks, "min_losses", min_losses, 0.0), persistent=False)
        self.register_buffer("logits", torch.zeros(count))
        self.register_buffer("moments", torch.zeros(2, count))
        self.register_buffer("steps", torch.zeros(count))
        self.register_buffer("before", torch.zeros(count))  # losses of the batch before the step
        self.register_buffer("present", torch.zeros(count, dtype=torch.bool))

    def observe(self, losses: Tensor, present: Tensor) -> None:
        self.before.copy_(losses)
        self.present.copy_(present)

    def total(self, losses: Tensor) -> Tensor:
        present = labelled(losses)
        weights = self._weights(present).to(losses)
        excess = torch.where(present, losses - self.min_losses.to(losses) + EPSILON, 1)
        scale = 1 / (weights / excess.detach()).sum().clamp_min(torch.finfo(losses.dtype).tiny)
        return scale * (weights * excess.log()).sum()

    @torch.no_grad()
    def after_step(self, losses: Tensor) -> None:
        before, after = self.before - self.min_losses + EPSILON, losses.to(self.before) - self.min_losses + EPSILON
        fall = before.log() - after.log()
        present = self.present & fall.isfinite()
        fall = torch.where(present, fall, 0)
        weights = self._weights(present)
        gradient = weights * (fall - (weights * fall).sum()) + self.weight_decay * self.logits
        moments = torch.stack([torch.lerp(gradient, self.moments[0], BETAS[0]),
                               torch.lerp(gradient * gradient, self.moments[1], BETAS[1])])
        self.moments.copy_(torch.where(present, moments, self.moments))
        self.steps += present
        mean, square = (moment / (1 - beta**self.steps) for moment, beta in zip(self.moments, BETAS, strict=True))
        update = self.lr * mean / (square.sqrt() + ADAM_EPSILON)
        self.logits -= torch.where(present, update, 0)

    def _weights(self, present: Tensor) -> Tensor:
        """The softmax over the tasks with labels; 0 for the others."""
        lowest = torch.finfo(self.logits.dtype).min
        return torch.softmax(self.logits.masked_fill(~present, lowest), 0) * present
