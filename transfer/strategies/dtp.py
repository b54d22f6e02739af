"""Dynamic task prioritization."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.errors import UserError
from transfer.strategies._loss_values import LEAST, at_least, of_tasks
from transfer.strategies.base import LossBalance
from transfer.strategies.registry import BALANCES


@BALANCES.register("dtp")
class Dtp(LossBalance):
    """Σ_t w_t L_t with w = −(1 − κ)^γ log κ: tasks that are solved badly weigh more.

    κ_t in (0, 1) is the key performance indicator of a task, from its predictions for the training
    batch (:meth:`transfer.tasks.base.Task.indicator`), as a moving average
    κ̄ ← α κ + (1 − α) κ̄ from its first value on, kept between 0.001 and 0.999. Until a task has one, its
    weight is 1.
    Source: Guo et al. 2018 (Dynamic task prioritization); Vandenhende 2022, equation 3.9.

    Args:
        tasks: names of the tasks.
        gamma: γ, how much easy tasks lose; one number, or by task (1 for those not named).
        alpha: α, how much the newest batch counts, up to 1.
    """

    wants_indicators = True  # of this step's whole batch: so it is not linear, though no loss has a part in the weights

    def __init__(self, tasks: Sequence[str], gamma: float | dict[str, float] = 1.0, alpha: float = 0.1) -> None:
        super().__init__(tasks)
        if isinstance(gamma, dict):
            focus = of_tasks(self.tasks, "gamma", gamma, 1.0, 0)
        else:
            focus = torch.full((len(self.tasks),), float(at_least("gamma", gamma)))
        if not 0 < alpha <= 1:
            raise UserError(f"balance.alpha is {alpha}: set it to more than 0 and at most 1")
        self.alpha = alpha
        self.register_buffer("gamma", focus, persistent=False)
        self.register_buffer("kappa", torch.zeros(len(self.tasks)))
        self.register_buffer("seen", torch.zeros(len(self.tasks), dtype=torch.bool))

    @torch.no_grad()
    def observe_indicators(self, indicators: Tensor, present: Tensor) -> None:
        indicators = indicators.to(self.kappa)
        known = present & indicators.isfinite()
        average = torch.where(self.seen, torch.lerp(self.kappa, indicators, self.alpha), indicators)
        self.kappa.copy_(torch.where(known, average, self.kappa))
        self.seen.logical_or_(known)

    def total(self, losses: Tensor) -> Tensor:
        kappa = self.kappa.clamp(LEAST, 1 - LEAST)
        weights = torch.where(self.seen, -((1 - kappa) ** self.gamma) * kappa.log(), 1)
        return (weights.to(losses) * losses).sum()
