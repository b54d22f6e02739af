"""Semantic segmentation metrics from one confusion matrix."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from transfer.metrics.base import mean_where, ratio
from transfer.metrics.units import percent

IGNORED = 255


class Segmentation(MulticlassConfusionMatrix):
    """mIoU, pixel accuracy and mean accuracy (percent) of the pixels of a whole set.

    Source: Vandenhende 2022, chapter 5, after the PASCAL VOC protocol: one confusion matrix over all
    pixels. mIoU averages the classes that occur in truth or prediction; mean accuracy those that
    occur in the truth.

    Args:
        num_classes: number of classes.
    """

    full_state_update = False
    units = percent("mIoU", "pixel_accuracy", "mean_accuracy")

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes=num_classes, ignore_index=IGNORED, validate_args=False)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add scores ``[B, C, H, W]`` and labels ``[B, H, W]`` (255 ignored)."""
        # max is several times faster than argmax over the channels on a CPU
        super().update(prediction.max(1).indices, target.long())

    def compute(self) -> dict[str, float]:
        """``{"mIoU", "pixel_accuracy", "mean_accuracy"}`` in percent."""
        matrix = self.confmat
        hits, truth, found = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
        union = truth + found - hits
        return {
            "mIoU": mean_where(ratio(hits, union, 100), union > 0),
            "pixel_accuracy": float(ratio(hits.sum(), truth.sum(), 100)),
            "mean_accuracy": mean_where(ratio(hits, truth, 100), truth > 0),
        }


class PartSegmentation(Segmentation):
    """mIoU (percent) over the images in which some part is labelled.

    Source: the human-parts protocol of Vandenhende 2022, chapter 5: images without people do not
    count, not even their background.
    """

    units = percent("mIoU")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add scores ``[B, C, H, W]`` and labels ``[B, H, W]`` (0 background, 255 ignored)."""
        has_parts = ((target != 0) & (target != IGNORED)).flatten(1).any(1)
        ignored = torch.full_like(target, IGNORED)
        super().update(prediction, torch.where(has_parts[:, None, None], target, ignored))

    def compute(self) -> dict[str, float]:
        """``{"mIoU"}`` in percent."""
        return {"mIoU": super().compute()["mIoU"]}
