"""Part segmentation."""

from __future__ import annotations

from torchmetrics import Metric

from transfer.metrics.segmentation import PartSegmentation
from transfer.tasks._segmentation import PixelClasses
from transfer.tasks.base import TASKS


@TASKS.register("parts")
class Parts(PixelClasses):
    """A part, or background 0, for each pixel: cross-entropy, mIoU over images that have parts.

    Parts are not sided, so mirroring swaps no labels (Vandenhende 2022, chapter 5).
    """

    units = PartSegmentation.units

    def metric(self) -> Metric:
        return PartSegmentation(self.channels)
