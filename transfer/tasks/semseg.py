"""Semantic segmentation."""

from __future__ import annotations

from torchmetrics import Metric

from transfer.metrics.segmentation import Segmentation
from transfer.tasks._segmentation import PixelClasses
from transfer.tasks.base import TASKS


@TASKS.register("semseg")
class SemanticSegmentation(PixelClasses):
    """A class for each pixel: cross-entropy, mIoU (Vandenhende 2022, chapter 5)."""

    units = Segmentation.units

    def metric(self) -> Metric:
        return Segmentation(self.channels)
