"""Constant weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.errors import UserError, closest
from transfer.strategies.base import LossBalance
from transfer.strategies.registry import BALANCES


@BALANCES.register("fixed")
class Fixed(LossBalance):
    """Σ_t w_t L_t with weights given by hand (Vandenhende 2022, equation 3.5).

    Args:
        tasks: names of the tasks.
        weights: w by task; 1 for those not named.

    Raises:
        UserError: a weight for a task that is not trained, or a negative one.
    """

    linear = True

    def __init__(self, tasks: Sequence[str], weights: dict[str, float] | None = None) -> None:
        super().__init__(tasks)
        weights = weights or {}
        for task, weight in weights.items():
            if task not in self.tasks:
                raise UserError(f"balance.weights has a weight for '{task}'{closest(task, self.tasks)}, and the tasks "
                                f"are {', '.join(self.tasks)}")
            if weight < 0:
                raise UserError(f"balance.weights: {task} has weight {weight}: set it to 0 or more")
        values = torch.tensor([float(weights.get(task, 1.0)) for task in self.tasks])
        self.register_buffer("task_weights", values, persistent=False)

    def total(self, losses: Tensor) -> Tensor:
        return (self.task_weights.to(losses) * losses).sum()
