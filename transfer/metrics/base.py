"""What all metrics of this package share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric


class SetMetric(Metric):
    """A metric whose states are sums over the set; ``compute()`` gives ``{name: float}``.

    Attributes:
        units: of each of these figures (:mod:`transfer.metrics.units`).
    """

    units: ClassVar[Mapping[str, str]] = {}
    full_state_update = False
    is_differentiable = False

    def add_sum(self, name: str, *shape: int, dtype: torch.dtype = torch.int64) -> None:
        """Declare a state that adds up over batches and processes."""
        self.add_state(name, torch.zeros(shape, dtype=dtype), dist_reduce_fx="sum")


def ratio(numerator: Tensor, denominator: Tensor, scale: float = 1.0) -> Tensor:
    """``scale · numerator / denominator`` in float64; 0/0 is ``nan``."""
    return scale * numerator.double() / denominator.double()


def mean_where(values: Tensor, defined: Tensor) -> float:
    """Mean of ``values`` where ``defined``; ``nan`` if that is nowhere."""
    return float(values[defined].mean()) if bool(defined.any()) else float("nan")
