"""Scene classification."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from harness.errors import UserError
from transfer.metrics.classification import Classification
from transfer.tasks._losses import count, focal_cross_entropy_sum, full_precision, per_label
from transfer.tasks.base import TASKS, Task


@TASKS.register("scene")
class Scene(Task):
    """The kind of place an image shows, −1 where unknown: cross-entropy, accuracy.

    Args:
        focal: γ of the focal loss; 0 is cross-entropy.
    """

    dense = False
    dtype = np.int64
    ignored = -1
    primary = "accuracy"
    units = Classification.units
    family = "categorical"

    def __init__(self, focal: float = 0.0) -> None:
        if not 0 <= focal < float("inf"):
            raise UserError(f"focal is {focal}: the exponent of the focal loss is 0 or more")
        self.focal = focal

    def bind(self, name: str, classes: Sequence[str] = ()) -> Task:
        if len(classes) < 2:
            raise UserError(f"task '{name}' needs at least two classes, not {len(classes)}")
        return super().bind(name, classes)

    @property
    def channels(self) -> int:
        return len(self.classes)

    def normalizer(self, target: Tensor) -> Tensor:
        return count(target != self.ignored)

    def loss(self, prediction: Tensor, target: Tensor, normalizer: Tensor) -> Tensor:
        logits = full_precision(prediction)
        if self.focal:
            classes = torch.arange(logits.shape[1], device=target.device)
            total = focal_cross_entropy_sum(logits, target[:, None] == classes, self.focal)  # −1 is no class
        else:
            total = F.cross_entropy(logits, target, ignore_index=self.ignored, reduction="sum")
        return per_label(total, normalizer)

    def indicator_counts(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The share of labelled images whose class is found."""
        hits = prediction.argmax(1) == target  # a label of −1 is equal to none
        return torch.cat([count(hits), count(target != self.ignored)])

    def metric(self) -> Metric:
        return Classification(self.channels)

    def from_prediction(self, prediction: Tensor) -> np.ndarray:
        return prediction.argmax(0).to("cpu").numpy()

    def caption(self, array: np.ndarray) -> str:
        return "?" if int(array) == self.ignored else self.classes[int(array)]
