"""Penalty-based boundary intersection."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchjd.scalarization import PBI

from transfer.strategies._loss_values import at_least, labelled, of_tasks, preferences
from transfer.strategies.base import LossBalance
from transfer.strategies.registry import BALANCES


@BALANCES.register("pbi")
class Pbi(LossBalance):
    """d₁ + θ d₂: how far the losses are from an ideal point z along a preference w, and θ times how far beside it.

    d₁ = (L − z)ᵀ ŵ, d₂ = ‖(L − z) − d₁ ŵ‖ with ŵ = w / ‖w‖.
    Source: Zhang and Li 2007 (MOEA/D).

    Args:
        tasks: names of the tasks.
        theta: θ; 5 in the paper.
        weights: preferences w by task; 1 for those not named.
        reference: the ideal point z by task, the loss that can be reached; 0 for those not named.
    """

    separable = False

    def __init__(self, tasks: Sequence[str], theta: float = 5.0, weights: dict[str, float] | None = None,
                 reference: dict[str, float] | None = None) -> None:
        super().__init__(tasks)
        self.theta = at_least("theta", theta)
        self.register_buffer("task_weights", preferences(self.tasks, weights), persistent=False)
        self.register_buffer("reference", of_tasks(self.tasks, "reference", reference, 0.0), persistent=False)

    def total(self, losses: Tensor) -> Tensor:
        # the direction is that of the tasks with labels
        present = labelled(losses)
        direction = torch.where(present | ~present.any(), self.task_weights.to(losses), 0)
        distance = PBI(self.theta, direction, self.reference.to(losses) * present)(losses)
        return torch.where(present.any(), distance, 0)
