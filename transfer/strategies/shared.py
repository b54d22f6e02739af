"""One step on the combined objective."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from transfer.strategies.base import Schedule
from transfer.strategies.registry import SCHEDULES


@SCHEDULES.register("shared")
class Shared(Schedule):
    """All tasks at once: one forward, one backward, one step (MTL-SUS; Pascal 2021, equation 4.3)."""

    def step(self, parts: Sequence[Any], tasks: Sequence[str]) -> dict[str, Tensor]:
        sums: dict[str, Tensor] = {}
        for number, part in enumerate(parts):
            losses = self.forward(part, tasks)
            self.backward(self.balance.total(torch.stack([losses[task] for task in tasks])), number == len(parts) - 1)
            for task, loss in losses.items():
                sums[task] = loss.detach() + sums.get(task, 0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return sums
