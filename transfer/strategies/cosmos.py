"""COSMOS."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torchjd.scalarization import COSMOS

from transfer.strategies._loss_values import at_least, labelled, preferences
from transfer.strategies.base import LossBalance
from transfer.strategies.registry import BALANCES


@BALANCES.register("cosmos")
class Cosmos(LossBalance):
    """Σ_t r_t L_t − λ cos(r, L): a weighted sum that keeps the losses near the direction of a preference r.

    The objective alone, for one preference; the network does not read it.
    Source: Ruchte and Grabocka 2021 (Scalable Pareto front approximation).

    Args:
        tasks: names of the tasks.
        penalty: λ; the paper has 0.01 to 8, by data set.
        weights: preferences r by task, scaled to the sum 1; 1 before that for those not named.
    """

    separable = False

    def __init__(self, tasks: Sequence[str], penalty: float = 1.0, weights: dict[str, float] | None = None) -> None:
        super().__init__(tasks)
        self.penalty = at_least("penalty", penalty)
        self.register_buffer("task_weights", preferences(self.tasks, weights), persistent=False)

    def total(self, losses: Tensor) -> Tensor:
        # the direction is that of the tasks with labels
        return COSMOS(self.penalty, self.task_weights.to(losses) * labelled(losses))(losses)
