"""One step on the combined objective."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from harness.errors import UserError
from transfer.strategies.base import Schedule
from transfer.strategies.registry import SCHEDULES


@SCHEDULES.register("shared")
class Shared(Schedule):
    """All tasks at once: one forward, one backward, one step (MTL-SUS; Pascal 2021, equation 4.3)."""

    def step(self, parts: Sequence[Any], tasks: Sequence[str]) -> dict[str, Tensor]:
        if len(parts) > 1 and not self.balance.linear:
            raise UserError(f"balance '{type(self.balance).__name__}' needs the losses of the whole batch before any "
                            "gradient: set --accumulation 1")
        sums: dict[str, Tensor] = {}
        for number, part in enumerate(parts):
            losses = self.forward(part, tasks)
            self.backward(self._objective(torch.stack([losses[task] for task in tasks])), number == len(parts) - 1)
            for task, loss in losses.items():
                sums[task] = loss.detach() + sums.get(task, 0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return sums

    def _objective(self, losses: Tensor) -> Tensor:
        """A scalar whose gradients, summed over processes, are those of the rule on the whole batch's losses.

        Σ_t (∂total/∂L_t) L_t with the derivative at the pooled losses; the rule's own parameters, which
        every process has alike, get their gradient from the pooled losses directly.
        """
        if self.balance.linear:
            return self.balance.total(losses)
        with torch.enable_grad():
            pooled = self.pool(losses.detach()).requires_grad_()
            total = self.balance.total(pooled)
            (weights,) = torch.autograd.grad(total, pooled, retain_graph=True)
        if any(value.requires_grad for value in self.balance.parameters()):
            return (weights * losses).sum() + total / self.pool(torch.ones_like(total.detach()))
        return (weights * losses).sum()
