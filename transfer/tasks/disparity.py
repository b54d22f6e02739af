"""Stereo disparity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor
from torchmetrics import Metric

from transfer.metrics.absolute import AbsoluteError
from transfer.metrics.units import PIXELS
from transfer.tasks._positive import PositiveMap
from transfer.tasks.base import TASKS, resize_prediction
from transfer.transforms import Geometry


@TASKS.register("disparity")
class Disparity(PositiveMap):
    """Horizontal offset between the two pictures of a stereo pair, in pixels, 0 where unknown: L1, error in pixels.

    Enlarging a picture multiplies by what its width is multiplied by; a prediction made at another width than the
    label's is brought to the label's pixels. A PNG file keeps 1/256 pixels.

    Source: Vandenhende 2022, section 4.4 (Cityscapes).
    """

    unit = PIXELS
    primary = "px_error"
    units = AbsoluteError.units_of(unit, primary)
    stored_scale = 256.0

    def metric(self) -> Metric:
        return AbsoluteError("px_error")

    def transform_values(self, target: np.ndarray, geometry: Geometry) -> np.ndarray:
        across = geometry.scale[1]
        if across != 1:
            target *= across
        return target

    def resized(self, prediction: Tensor, size: Sequence[int]) -> Tensor:
        return resize_prediction(prediction, size) * (size[1] / prediction.shape[-1])
