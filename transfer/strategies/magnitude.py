"""Losses of one size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from transfer.strategies._loss_values import at_least, equalizing, measured
from transfer.strategies.base import LossBalance
from transfer.strategies.registry import BALANCES


@BALANCES.register("magnitude")
class Magnitude(LossBalance):
    """Σ_t w_t L_t with w_t ∝ 1 / mean of L_t over the first iterations, Σ w = T; then w stays.

    During these iterations w is 1. A task without labels in them keeps weight 1 until its first loss,
    which then stands for its mean.
    Source: Vandenhende 2022, section 6.3.3, heuristic 2.

    Args:
        tasks: names of the tasks.
        iterations: how many steps the losses are averaged over.
    """

    linear = True

    def __init__(self, tasks: Sequence[str], iterations: int = 100) -> None:
        super().__init__(tasks)
        self.iterations = at_least("iterations", iterations, 1)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("sums", torch.zeros(len(self.tasks), dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(len(self.tasks), dtype=torch.long))
        self.register_buffer("task_weights", torch.ones(len(self.tasks)))

    @torch.no_grad()
    def observe(self, losses: Tensor, present: Tensor) -> None:
        # The weights come from the steps before this one, so that they do not depend on its losses.
        begun = self.steps < self.iterations
        weights = equalizing(self.sums / self.counts.clamp_min(1)).to(self.task_weights)
        self.task_weights.copy_(torch.where(begun, self.task_weights, weights))
        new = measured(losses, present) & (begun | (self.counts == 0))
        self.sums += torch.where(new, losses, 0)
        self.counts += new
        self.steps += 1

    def total(self, losses: Tensor) -> Tensor:
        return (self.task_weights.to(losses) * losses).sum()
