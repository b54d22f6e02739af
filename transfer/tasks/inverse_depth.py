"""Inverse depth."""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torchmetrics import Metric

from transfer.metrics.absolute import AbsoluteError
from transfer.metrics.units import INVERSE_METRES
from transfer.tasks._positive import PositiveMap
from transfer.tasks.base import TASKS
from transfer.transforms import Geometry


@TASKS.register("inverse_depth")
class InverseDepth(PositiveMap):
    """One over the depth (1/m), 0 where unknown: L1, absolute error (Liu 2018, section 2.3).

    The farther, the smaller, so the sky is near 0. Enlarging a picture by s multiplies by s. A PNG file keeps
    ten-thousandths.
    """

    unit = INVERSE_METRES
    primary = "abs"
    units = AbsoluteError.units_of(unit)
    stored_scale = 10000.0

    def metric(self) -> Metric:
        return AbsoluteError("abs")

    def transform_values(self, target: np.ndarray, geometry: Geometry) -> np.ndarray:
        if geometry.zoom != 1:
            target *= geometry.zoom
        return target

    def zoomed_values(self, prediction: Tensor, scale: float) -> Tensor:
        return prediction / scale
