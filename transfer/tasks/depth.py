"""Depth along the camera axis."""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torchmetrics import Metric

from transfer.metrics.depth import Depth as DepthMetric
from transfer.metrics.units import METRES
from transfer.tasks._positive import PositiveMap
from transfer.tasks.base import TASKS
from transfer.transforms import Geometry


@TASKS.register("depth")
class Depth(PositiveMap):
    """Metres along the camera axis, 0 where unknown: L1, RMSE (Vandenhende 2022, chapter 5).

    Enlarging a picture by s without changing the camera's focal length is coming s times nearer, so
    depths are divided by s. A PNG file keeps millimetres.
    """

    unit = METRES
    primary = "RMSE"
    units = DepthMetric.units

    def metric(self) -> Metric:
        return DepthMetric()

    def transform_values(self, target: np.ndarray, geometry: Geometry) -> np.ndarray:
        if geometry.zoom != 1:
            target /= geometry.zoom
        return target

    def zoomed_values(self, prediction: Tensor, scale: float) -> Tensor:
        return prediction * scale
