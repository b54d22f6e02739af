"""Errors of a positive quantity."""

from __future__ import annotations

import torch
from torch import Tensor

from transfer.metrics.base import SetMetric, ratio
from transfer.metrics.units import PLAIN


class AbsoluteError(SetMetric):
    """Mean absolute, relative and root mean square error over all labelled pixels of a set.

    Source: Vandenhende 2022, section 4.4 (disparity, px); Liu 2018, section 2.3 (inverse depth, absolute and
    relative).

    Args:
        name: what the mean absolute error is called.
    """

    def __init__(self, name: str = "abs") -> None:
        super().__init__()
        self.name = name
        self.add_sum("pixels")
        self.add_sum("errors", 3, dtype=torch.float64)  # absolute, relative, squared

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add values ``[B, 1, H, W]`` and labels ``[B, H, W]``; labels that are 0 are ignored."""
        valid = target > 0
        truth = torch.where(valid, target, 1).double()
        error = (torch.where(valid, prediction[:, 0], 1).double() - truth).abs()
        self.pixels += valid.sum()
        self.errors += torch.stack([error.sum(), (error / truth).sum(), (error * error).sum()])

    @staticmethod
    def units_of(unit: str, name: str = "abs") -> dict[str, str]:
        """Units of the figures, for labels in ``unit``."""
        return {name: unit, "rel": PLAIN, "RMSE": unit}

    def compute(self) -> dict[str, float]:
        """The absolute error under its name and ``RMSE`` in the label's unit, ``rel`` as a fraction."""
        absolute, relative, squared = ratio(self.errors, self.pixels).tolist()
        return {self.name: absolute, "rel": relative, "RMSE": squared**0.5}
