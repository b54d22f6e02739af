"""Distributions over kinds of places."""

from __future__ import annotations

import torch
from torch import Tensor

from transfer.metrics.base import SetMetric, ratio
from transfer.metrics.units import percent


class SceneDistribution(SetMetric):
    """Overlap of the five likeliest classes of prediction and label, and accuracy of the likeliest, over a set.

    Source: Vandenhende 2022, section 4.4 (Taskonomy). With five classes or fewer all overlap.
    """

    units = percent("top5_overlap", "accuracy")

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("images")
        self.add_sum("hits")
        self.add_sum("overlap", dtype=torch.float64)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add scores ``[B, C]`` and distributions ``[B, C]``; rows of zeros are ignored."""
        known = (target > 0).any(1)
        best = min(5, prediction.shape[1])
        found, truth = prediction.topk(best, dim=1).indices, target.topk(best, dim=1).indices
        common = (found[:, :, None] == truth[:, None, :]).any(2).sum(1).double() / best
        self.images += known.sum()
        self.hits += ((found[:, 0] == truth[:, 0]) & known).sum()
        self.overlap += (common * known).sum()

    def compute(self) -> dict[str, float]:
        """``{"top5_overlap", "accuracy"}`` in percent."""
        return {"top5_overlap": float(ratio(self.overlap, self.images, 100)),
                "accuracy": float(ratio(self.hits, self.images, 100))}
