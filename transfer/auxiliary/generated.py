"""The task of predicting generated classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from transfer.metrics.classification import Classification
from transfer.tasks._losses import count, focal_cross_entropy_sum, full_precision, per_label
from transfer.tasks.base import Task


class GeneratedClasses(Task):
    """Subclasses of the classes of another task, as soft labels; a row of zeros is none.

    Args:
        counts: ψ, the number of subclasses of each class.
        focal: γ of the focal loss.
    """

    dense = False
    dtype = np.float32
    ignored = 0
    primary = "accuracy"
    family = "categorical"

    def __init__(self, counts: Sequence[int], focal: float = 2.0) -> None:
        self.counts, self.focal = list(counts), focal

    def bind(self, name: str, classes: Sequence[str] = ()) -> Task:
        """Take the classes of the other task."""
        return super().bind(name, [f"{parent} {number + 1}" for parent, many in zip(classes, self.counts, strict=True)
                                   for number in range(many)])

    @property
    def channels(self) -> int:
        return sum(self.counts)

    def target_shape(self, height: int, width: int) -> tuple[int, ...]:
        return (self.channels,)

    def normalizer(self, target: Tensor) -> Tensor:
        return count((target > 0).any(1))

    def loss(self, prediction: Tensor, target: Tensor, normalizer: Tensor) -> Tensor:
        return per_label(focal_cross_entropy_sum(full_precision(prediction), target, self.focal), normalizer)

    def indicator_counts(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The share of images whose most probable subclass is found."""
        known = (target > 0).any(1)
        return torch.cat([count((prediction.argmax(1) == target.argmax(1)) & known), count(known)])

    def metric(self) -> Metric:
        return Classification(self.channels)

    def from_prediction(self, prediction: Tensor) -> np.ndarray:
        return prediction.softmax(0).to("cpu").numpy()

    def caption(self, array: np.ndarray) -> str:
        return self.classes[int(array.argmax())]
