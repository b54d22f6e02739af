"""Errors of offsets to the centres of instances."""

from __future__ import annotations

import torch
from torch import Tensor

from transfer.metrics.base import SetMetric, ratio
from transfer.metrics.units import PIXELS


class InstanceCenter(SetMetric):
    """Mean absolute error over pixels and components, and mean distance, over all pixels of instances of a set.

    Source: Sener and Koltun 2018, section 4.3, and Vandenhende 2022, table 4.1, whose figure is ``px_error``.
    """

    units = {"px_error": PIXELS, "distance": PIXELS}

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("pixels")
        self.add_sum("errors", 2, dtype=torch.float64)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add offsets ``[B, 2, H, W]`` and labels ``[B, 2, H, W]``, pixels; (0, 0) is ignored."""
        valid = (target != 0).any(1)
        missed = torch.where(valid[:, None], prediction.double() - target.double(), 0.0)
        self.pixels += valid.sum()
        self.errors += torch.stack([missed.abs().sum() / 2, torch.hypot(missed[:, 0], missed[:, 1]).sum()])

    def compute(self) -> dict[str, float]:
        """``px_error`` (of a component) and ``distance``, pixels."""
        absolute, distance = ratio(self.errors, self.pixels).tolist()
        return {"px_error": absolute, "distance": distance}
