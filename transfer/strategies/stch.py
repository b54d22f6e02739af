"""Smooth Tchebycheff scalarization."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchjd.scalarization import STCH

from transfer.strategies._loss_values import at_least, labelled, of_tasks, preferences
from transfer.strategies.base import LossBalance
from transfer.strategies.registry import BALANCES

FAR = -1e30  # has no part in a maximum, and stays finite


@BALANCES.register("stch")
class Stch(LossBalance):
    """μ log Σ_t exp(λ_t (L_t − z_t) / μ), a smooth max_t λ_t (L_t − z_t): the worst task comes first.

    Source: Lin et al. 2024 (Smooth Tchebycheff scalarization).

    Args:
        tasks: names of the tasks.
        mu: μ, how smooth; the smaller, the nearer to the maximum. The paper tries 0.01 to 1.
        weights: preferences λ by task, scaled to the sum 1; 1 before that for those not named.
        reference: the ideal point z by task, the loss that can be reached; 0 for those not named.
    """

    separable = False

    def __init__(self, tasks: Sequence[str], mu: float = 1.0, weights: dict[str, float] | None = None,
                 reference: dict[str, float] | None = None) -> None:
        super().__init__(tasks)
        self.mu = at_least("mu", mu, strictly=True)
        self.register_buffer("task_weights", preferences(self.tasks, weights), persistent=False)
        self.register_buffer("reference", of_tasks(self.tasks, "reference", reference, 0.0), persistent=False)

    def total(self, losses: Tensor) -> Tensor:
        present = labelled(losses)
        smooth = STCH(self.mu, self.task_weights.to(losses), self.reference.to(losses))
        return torch.where(present.any(), smooth(torch.where(present, losses, FAR)), 0)
