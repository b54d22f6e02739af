"""Depth errors."""

from __future__ import annotations

import torch
from torch import Tensor

from transfer.metrics.base import SetMetric, ratio
from transfer.metrics.units import METRES, PLAIN, percent


class Depth(SetMetric):
    """RMSE, absolute and relative error, and δ accuracies over all labelled pixels of a set.

    Source: Eigen et al. 2014, as used by Vandenhende 2022, chapter 5: δ_k is the share of pixels
    with max(d/d*, d*/d) < 1.25^k. Pixels are pooled: the RMSE is not a mean of images' RMSEs.
    """

    units = {"RMSE": METRES, "abs": METRES, "abs_rel": PLAIN, **percent("d1", "d2", "d3")}

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("pixels")
        self.add_sum("within", 3)
        self.add_sum("errors", 3, dtype=torch.float64)  # squared, absolute, relative

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add depths ``[B, 1, H, W]`` and labels ``[B, H, W]``, metres; labels that are 0 are ignored."""
        valid = target > 0
        truth = torch.where(valid, target, 1).double()
        predicted = torch.where(valid, prediction[:, 0], 1).double()
        error = (predicted - truth).abs()
        # A depth at or below zero has no ratio: the clamp makes it as wrong as can be.
        positive = predicted.clamp_min(1e-9)
        worst = torch.maximum(positive / truth, truth / positive)
        self.pixels += valid.sum()
        self.errors += torch.stack([(error * error).sum(), error.sum(), (error / truth).sum()])
        self.within += torch.stack([((worst < 1.25**k) & valid).sum() for k in (1, 2, 3)])

    def compute(self) -> dict[str, float]:
        """``RMSE`` and ``abs`` in metres, ``abs_rel`` as a fraction, ``d1``–``d3`` in percent."""
        squared, absolute, relative = ratio(self.errors, self.pixels).tolist()
        d1, d2, d3 = ratio(self.within, self.pixels, 100).tolist()
        return {"RMSE": squared**0.5, "abs": absolute, "abs_rel": relative, "d1": d1, "d2": d2, "d3": d3}
