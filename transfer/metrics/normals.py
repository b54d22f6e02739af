"""Angular errors of surface normals."""

from __future__ import annotations

import torch
from torch import Tensor

from transfer.metrics.base import SetMetric, ratio
from transfer.metrics.units import DEGREES, percent

THRESHOLDS = (11.25, 22.5, 30.0)
_BINS_PER_DEGREE = 200


class Normals(SetMetric):
    """Mean and median angle, and the share of pixels within 11.25°, 22.5° and 30°, over a set.

    Source: Fouhey et al. 2013, as used by Vandenhende 2022, chapter 5. Mean and shares are exact. The
    median is read from a histogram with bins of 0.005°, so it is within 0.0025°: a histogram adds up
    over processes, and a list of all pixels does not fit in memory.
    """

    units = {"mean_angle": DEGREES, "median_angle": DEGREES,
             **percent("within_11.25", "within_22.5", "within_30")}

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("pixels")
        self.add_sum("total", dtype=torch.float64)
        self.add_sum("within", len(THRESHOLDS))
        self.add_sum("histogram", 180 * _BINS_PER_DEGREE)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add vectors ``[B, 3, H, W]`` of any length and labels ``[B, 3, H, W]``; zero is ignored."""
        valid = (target != 0).any(1)
        angle = angles(prediction, target)[valid]
        self.pixels += valid.sum()
        self.total += angle.sum(dtype=torch.float64)
        self.within += torch.stack([(angle < threshold).sum() for threshold in THRESHOLDS])
        bins = len(self.histogram)
        place = (angle * _BINS_PER_DEGREE).long().clamp_(0, bins - 1)
        self.histogram += torch.bincount(place, minlength=bins)

    def compute(self) -> dict[str, float]:
        """``mean_angle`` and ``median_angle`` in degrees, ``within_…`` in percent."""
        shares = ratio(self.within, self.pixels, 100).tolist()
        return {
            "mean_angle": float(ratio(self.total, self.pixels)),
            "median_angle": self._median(),
            **{f"within_{t:g}": share for t, share in zip(THRESHOLDS, shares, strict=True)},
        }

    def _median(self) -> float:
        pixels = int(self.pixels)
        if pixels == 0:
            return float("nan")
        middle = torch.tensor([(pixels - 1) // 2, pixels // 2], device=self.histogram.device)
        places = torch.searchsorted(self.histogram.cumsum(0), middle, right=True)
        return float((places.double() + 0.5).mean()) / _BINS_PER_DEGREE


def angles(prediction: Tensor, target: Tensor) -> Tensor:
    """Angle between two fields of vectors ``[B, 3, H, W]`` of any length, float64 degrees ``[B, H, W]``.

    By atan2(|p × t|, p · t), which keeps its precision near 0° and 180°, where the arc cosine has none.
    A zero vector is 90° from everything.
    """
    px, py, pz = prediction.double().unbind(1)
    tx, ty, tz = target.double().unbind(1)
    cx, cy, cz = py * tz - pz * ty, pz * tx - px * tz, px * ty - py * tx
    sine, cosine = (cx * cx + cy * cy + cz * cz).sqrt(), px * tx + py * ty + pz * tz
    nothing = (sine == 0) & (cosine == 0)
    return torch.rad2deg(torch.atan2(sine, cosine)).masked_fill(nothing, 90.0)
