"""Saliency."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torchmetrics import Metric

from harness.errors import UserError
from transfer.metrics.saliency import Saliency as SaliencyMetric
from transfer.tasks._binary import BinaryMap
from transfer.tasks._losses import binary_cross_entropy_sum, full_precision, per_label
from transfer.tasks.base import TASKS


@TASKS.register("saliency")
class Saliency(BinaryMap):
    """Does the pixel belong to what draws the eye: balanced BCE, maximum mIoU.

    Source: Vandenhende 2022, chapter 5; class balancing as in Xie and Tu 2015, equation 2, with the
    share of positives taken over the whole batch.

    Args:
        balance: ``batch`` weighs each class by the other one's share of the batch's labelled pixels;
            ``none`` weighs all pixels alike.
    """

    primary = "max_mIoU"
    units = SaliencyMetric.units

    def __init__(self, balance: Literal["batch", "none"] = "batch") -> None:
        if balance not in ("batch", "none"):
            raise UserError(f"saliency: balance '{balance}' is unknown: choose batch or none")
        self.balance = balance

    def normalizer(self, target: Tensor) -> Tensor:
        return torch.stack([(target == 0).sum(), (target == 1).sum()]).double()

    def loss(self, prediction: Tensor, target: Tensor, normalizer: Tensor) -> Tensor:
        logits = full_precision(prediction)[:, 0]
        labels, labelled = target.to(logits.dtype), target <= 1
        if self.balance == "batch":
            # each class weighs the other one's share, so the counts are read crosswise
            positive, negative = (normalizer / normalizer.sum().clamp_min(1)).to(logits.dtype)
            weight = (labels * (positive - negative) + negative) * labelled
        else:
            weight = labelled
        return per_label(binary_cross_entropy_sum(logits, labels, weight), normalizer)

    def metric(self) -> Metric:
        return SaliencyMetric()
