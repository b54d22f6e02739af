"""Errors of heat maps."""

from __future__ import annotations

import torch
from torch import Tensor

from transfer.metrics.base import SetMetric, ratio
from transfer.metrics.units import PLAIN


class HeatMapError(SetMetric):
    """Mean absolute error over all labelled pixels of a set, and over those of points (above ½).

    Source: Vandenhende 2022, table 4.2 (there times 100). Nearly all of a map is 0, so that an empty prediction has
    a small ``L1``; ``L1_peaks`` tells it apart.
    """

    units = {"L1": PLAIN, "L1_peaks": PLAIN}

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("pixels", 2)
        self.add_sum("errors", 2, dtype=torch.float64)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add values ``[B, 1, H, W]`` and labels ``[B, H, W]``; labels below 0 are ignored."""
        valid, peaks = target >= 0, target > 0.5
        error = torch.where(valid, (prediction[:, 0].double() - target.double()).abs(), 0.0)
        self.pixels += torch.stack([valid.sum(), peaks.sum()])
        self.errors += torch.stack([error.sum(), (error * peaks).sum()])

    def compute(self) -> dict[str, float]:
        """``L1`` and ``L1_peaks``, in the map's unit."""
        everywhere, peaks = ratio(self.errors, self.pixels).tolist()
        return {"L1": everywhere, "L1_peaks": peaks}
