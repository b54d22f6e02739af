"""A step for each task in turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from transfer.strategies.base import Schedule
from transfer.strategies.registry import SCHEDULES


@SCHEDULES.register("individual")
class Individual(Schedule):
    """Individual update steps (MTL-IUS; Pascal 2021, equations 4.4 and 4.6).

    w_{t+1}^{(k)} = w_{t+1}^{(k−1)} − η m̂(g^{(k)}(w_{t+1}^{(k−1)}, ξ_t)), k = 1 … N, with w_{t+1}^{(0)} = w_t^{(N)}:
    each task has its own forward, backward and step on the same batch, at the parameters that the task before it
    left. The one optimiser's moments m̂ mix the gradients of all tasks. A task without labels in the batch makes none.
    """

    def step(self, parts: Sequence[Any]) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}
        for group, tasks in self.training.groups.items():
            found = self.training.objective.accumulate(parts, tasks)
            if found:
                self.update(self.optimizer_of(group))
            losses |= found
        return losses

    def optimizer_of(self, group: str) -> Any:
        """Whose step a group of tasks takes."""
        return self.training.optimizer
