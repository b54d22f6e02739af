"""One step on the combined objective."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from transfer.strategies.base import Schedule
from transfer.strategies.registry import SCHEDULES


@SCHEDULES.register("shared")
class Shared(Schedule):
    """All tasks at once: one forward, one combined gradient, one step (MTL-SUS; Pascal 2021, equation 4.3).

    A batch without any label makes no step, as in every schedule: moments and weight decay do not act either.
    """

    joint = True

    def step(self, parts: Sequence[Any]) -> dict[str, Tensor]:
        losses = self.training.objective.accumulate(parts, self.training.tasks)
        if losses:
            self.update(self.training.optimizer)
        else:
            self.training.optimizer.zero_grad(set_to_none=True)
        return losses
