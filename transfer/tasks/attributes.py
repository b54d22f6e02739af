"""Attributes of an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from harness.errors import UserError
from transfer.metrics.attributes import Attributes as AttributesMetric
from transfer.tasks._losses import binary_cross_entropy_sum, count, full_precision, per_label
from transfer.tasks.base import TASKS, Task


@TASKS.register("attributes")
class Attributes(Task):
    """Yes or no for each of several attributes, 255 where unknown: BCE, mean accuracy.

    Source: Sener and Koltun 2018, section 4 (CelebA).
    """

    dense = False
    primary = "mean_accuracy"
    units = AttributesMetric.units
    family = "bernoulli"

    def bind(self, name: str, classes: Sequence[str] = ()) -> Task:
        if not classes:
            raise UserError(f"task '{name}' needs at least one attribute")
        return super().bind(name, classes)

    @property
    def channels(self) -> int:
        return len(self.classes)

    def target_shape(self, height: int, width: int) -> tuple[int, ...]:
        return (len(self.classes),)

    def normalizer(self, target: Tensor) -> Tensor:
        return count(target <= 1)

    def loss(self, prediction: Tensor, target: Tensor, normalizer: Tensor) -> Tensor:
        total = binary_cross_entropy_sum(full_precision(prediction), target, target <= 1)
        return per_label(total, normalizer)

    def indicator_counts(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The share of known attributes that are found."""
        hits = (prediction > 0) == target  # a label of 255 is equal to none
        return torch.cat([count(hits), count(target <= 1)])

    def metric(self) -> Metric:
        return AttributesMetric(self.channels)

    def from_prediction(self, prediction: Tensor) -> np.ndarray:
        return (prediction > 0).to("cpu").numpy().astype(np.uint8)

    def caption(self, array: np.ndarray) -> str:
        present = (name for name, value in zip(self.classes, array, strict=True) if value == 1)
        return ", ".join(present) or "none"
