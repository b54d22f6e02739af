"""Keypoints."""

from __future__ import annotations

from torchmetrics import Metric

from transfer.metrics.heat_map import HeatMapError
from transfer.tasks._heat_map import HeatMap
from transfer.tasks.base import TASKS


@TASKS.register("keypoints")
class Keypoints(HeatMap):
    """A heat map of points that stand out, 0 to 1, −1 where unknown: L1, mean absolute error.

    Source: Vandenhende 2022, section 4.4 (Taskonomy; its tables state a hundred times the error).
    """

    primary = "L1"
    units = HeatMapError.units

    def metric(self) -> Metric:
        return HeatMapError()
