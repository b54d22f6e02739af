"""Any heat map."""

from __future__ import annotations

from torchmetrics import Metric

from transfer.metrics.heat_map import HeatMapError
from transfer.tasks._heat_map import HeatMap
from transfer.tasks.base import TASKS


@TASKS.register("heat_map")
class AnyHeatMap(HeatMap):
    """A strength for each pixel, 0 to 1, −1 where unknown: L1, mean absolute error.

    For edges that are graded rather than drawn (Vandenhende 2022, section 4.4, Taskonomy), and for maps of one's own.
    """

    primary = "L1"
    units = HeatMapError.units

    def metric(self) -> Metric:
        return HeatMapError()
