"""One task a step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from harness.errors import UserError
from harness.seeding import numpy_generator
from transfer.strategies.base import Schedule, Training
from transfer.strategies.registry import SCHEDULES


@SCHEDULES.register("sampled")
class Sampled(Schedule):
    """One task, or group of tasks, takes the step: drawn in proportion to its data, p_k ∝ n_k^{1/τ}.

    n_k is the number of labelled training samples of the task, summed over the tasks of a group. τ = 1 is proportional
    sampling; the higher the temperature, the more even the tasks. All processes draw the same task.

    Args:
        temperature: τ; inf draws evenly.

    Raises:
        UserError: the temperature is not positive, or no task has labels.
    """

    def __init__(self, training: Training, temperature: float = 1.0) -> None:
        super().__init__(training)
        if not temperature > 0:
            raise UserError(f"schedule.temperature is {temperature}: set it to more than 0")
        self.temperature = temperature
        self.steps = 0
        sizes = np.array([math.fsum(training.sizes[task] for task in tasks) for tasks in training.groups.values()])
        if not sizes.any():
            raise UserError(f"schedule 'sampled' draws tasks in proportion to their labels, and none of "
                            f"{', '.join(training.tasks)} has any: give labelled data, or --schedule.name shared")
        shares = np.where(sizes > 0, (sizes / sizes.max()) ** (1 / temperature), 0.0)
        self.probabilities = shares / shares.sum()

    def draw(self) -> str:
        """The group whose turn it is; changes with every step."""
        generator = numpy_generator(self.training.seed, "sampled task", self.steps)
        return list(self.training.groups)[generator.choice(len(self.probabilities), p=self.probabilities)]

    def step(self, parts: Sequence[Any]) -> dict[str, Tensor]:
        losses = self.training.objective.accumulate(parts, self.training.groups[self.draw()])
        if losses:
            self.update(self.training.optimizer)
        self.steps += 1
        return losses

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.steps = state["steps"]
