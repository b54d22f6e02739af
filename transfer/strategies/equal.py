"""Equal weights."""

from __future__ import annotations

from torch import Tensor

from transfer.strategies.base import LossBalance
from transfer.strategies.registry import BALANCES


@BALANCES.register("equal")
class Equal(LossBalance):
    """Σ_t L_t, the plain sum of the losses."""

    linear = True

    def total(self, losses: Tensor) -> Tensor:
        return losses.sum()
