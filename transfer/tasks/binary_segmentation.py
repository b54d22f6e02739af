"""One class against the rest."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from harness.errors import UserError
from transfer.metrics.binary import BinarySegmentation as BinaryMetric
from transfer.tasks._binary import BinaryMap
from transfer.tasks._losses import binary_cross_entropy_sum, count, full_precision, per_label
from transfer.tasks.base import TASKS


@TASKS.register("binary_segmentation")
class BinarySegmentation(BinaryMap):
    """Is the pixel of one class, 0 or 1, 255 where unknown: BCE, IoU.

    Source: Pascal 2021, sections 3.4.4 (each class of Cityscapes or NYUv2 as a task of its own) and 5.3 (optic disc
    and cup).

    Args:
        primary: the metric that stands for the task: IoU, Dice (which is the F1 of the pooled pixels), image_Dice
            (the mean over images) or pixel_accuracy.
        largest: keep the largest connected region of a prediction only, where there is one object at most.
    """

    primary = "IoU"
    units = BinaryMetric.units

    def __init__(self, primary: Literal["IoU", "Dice", "image_Dice", "pixel_accuracy"] = "IoU",
                 largest: bool = False) -> None:
        choices = ("IoU", "Dice", "image_Dice", "pixel_accuracy")
        if primary not in choices:
            raise UserError(f"binary_segmentation: primary '{primary}' is unknown: choose {', '.join(choices)}")
        self.primary, self.largest = primary, largest

    def normalizer(self, target: Tensor) -> Tensor:
        return count(target <= 1)

    def loss(self, prediction: Tensor, target: Tensor, normalizer: Tensor) -> Tensor:
        total = binary_cross_entropy_sum(full_precision(prediction)[:, 0], target, target <= 1)
        return per_label(total, normalizer)

    def metric(self) -> Metric:
        return BinaryMetric(self.largest)

    def from_prediction(self, prediction: Tensor) -> np.ndarray:
        probability = super().from_prediction(prediction)
        if self.largest:
            from transfer.metrics.binary import largest_region

            probability = np.where((probability > 0.5) & ~largest_region(torch.from_numpy(probability > 0.5)).numpy(),
                                   0, probability).astype(np.float32)
        return probability
