"""Losses of one size, hard tasks first."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from transfer.strategies._loss_values import LEAST, at_least, equalizing, measured
from transfer.strategies.base import LossBalance
from transfer.strategies.registry import BALANCES


@BALANCES.register("difficulty")
class Difficulty(LossBalance):
    """Σ_t w_t L_t with w_t = m_t (1 − κ_t)^γ, where m_t ∝ 1 / mean of L_t, Σ m = T; renewed at intervals.

    Mean loss and mean κ, the key performance indicator of a task
    (:meth:`transfer.tasks.base.Task.indicator`), are those of the interval before; in the first one w is
    1. A task without labels in an interval keeps its former means. Hard tasks weigh more than others,
    and all weigh less as they are solved: Σ w falls below T.
    Source: Vandenhende 2022, section 6.3.3, heuristic 4.

    Args:
        tasks: names of the tasks.
        gamma: γ, how much easy tasks lose.
        every: steps of an interval; 0 for an epoch.
    """

    linear = True
    wants_indicators = True

    def __init__(self, tasks: Sequence[str], gamma: float = 1.0, every: int = 0) -> None:
        super().__init__(tasks)
        self.gamma, self.every = at_least("gamma", gamma), at_least("every", every)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        # over the present interval: losses, indicators
        self.register_buffer("sums", torch.zeros(2, len(self.tasks), dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(2, len(self.tasks), dtype=torch.long))
        # of the last interval that has them
        self.register_buffer("means", torch.zeros(2, len(self.tasks)))

    @torch.no_grad()
    def observe(self, losses: Tensor, present: Tensor) -> None:
        # An interval is closed by the step after it, so that weights do not depend on a step's own losses.
        if self.every:
            self._renew((self.steps > 0) & (self.steps % self.every == 0))
        self._add(0, losses, measured(losses, present))
        self.steps += 1

    @torch.no_grad()
    def observe_indicators(self, indicators: Tensor, present: Tensor) -> None:
        self._add(1, indicators, present & indicators.isfinite())

    @torch.no_grad()
    def end_of_epoch(self, losses: Tensor, present: Tensor) -> None:
        if not self.every:
            self._renew(torch.ones_like(self.steps, dtype=torch.bool))

    def _add(self, row: int, values: Tensor, known: Tensor) -> None:
        self.sums[row] += torch.where(known, values, 0)
        self.counts[row] += known

    def _renew(self, due: Tensor) -> None:
        means = (self.sums / self.counts.clamp_min(1)).to(self.means)
        self.means.copy_(torch.where(due & (self.counts > 0), means, self.means))
        self.sums.masked_fill_(due, 0)
        self.counts.masked_fill_(due, 0)

    def total(self, losses: Tensor) -> Tensor:
        mean, kappa = self.means
        weights = equalizing(mean) * (1 - kappa).clamp_min(LEAST) ** self.gamma
        return (weights.to(losses) * losses).sum()
