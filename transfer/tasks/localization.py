"""Where one point is."""

from __future__ import annotations

import numpy as np
from torchmetrics import Metric

from harness.errors import UserError
from transfer.metrics.localization import Localization as LocalizationMetric
from transfer.metrics.localization import center_of_mass
from transfer.tasks._heat_map import HeatMap
from transfer.tasks.base import TASKS

_SPREAD = 1 / 32


@TASKS.register("localization")
class Localization(HeatMap):
    """A point, trained as a Gaussian map of height 1 about it, −1 where unknown: L1, distance in pixels.

    The point is the centre of mass of the map (Pascal 2021, section 5.3: the fovea of REFUGE).

    Args:
        floor: share of a predicted map's maximum below which its values do not count for the centre of mass; 0
            counts all that are positive.
    """

    primary = "distance"
    units = LocalizationMetric.units

    def __init__(self, floor: float = 0.0) -> None:
        if not 0 <= floor < 1:
            raise UserError(f"localization: floor {floor} must be at least 0 and below 1")
        self.floor = floor

    def metric(self) -> Metric:
        return LocalizationMetric(self.floor)

    def point(self, array: np.ndarray) -> tuple[float, float]:
        """The point (x, y), in pixels, of a map ``[H, W]``; not finite where it has none."""
        import torch

        x, y = center_of_mass(torch.from_numpy(array)[None], self.floor)[0].tolist()
        return x, y


def gaussian_map(x: float, y: float, height: int, width: int, sigma: float | None = None) -> np.ndarray:
    """A Gaussian about a point, as a target of this task.

    Args:
        x: of the point, pixels from the left edge; a pixel's centre is at ½.
        y: of the point, pixels from the top.
        height: rows of the map.
        width: columns of the map.
        sigma: standard deviation, pixels; by default a thirty-second of the shorter side.

    Returns:
        float32 ``[height, width]``, 1 at the point.
    """
    sigma = sigma or _SPREAD * min(height, width)
    across = np.exp(-((np.arange(width) + 0.5 - x) ** 2) / (2 * sigma**2))
    down = np.exp(-((np.arange(height) + 0.5 - y) ** 2) / (2 * sigma**2))
    return (down[:, None] * across).astype(np.float32)
