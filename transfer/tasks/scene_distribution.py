"""How likely an image shows each kind of place."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from transfer.metrics.scene import SceneDistribution as SceneDistributionMetric
from transfer.tasks._losses import count, full_precision, per_label
from transfer.tasks.base import TASKS
from transfer.tasks.scene import Scene


@TASKS.register("scene_distribution")
class SceneDistribution(Scene):
    """A probability for each kind of place, all 0 where unknown: KL divergence, overlap of the five likeliest.

    Source: Vandenhende 2022, section 4.4 (Taskonomy, whose labels are the output of another network).
    """

    dtype = np.float32
    ignored = 0
    primary = "top5_overlap"
    units = SceneDistributionMetric.units

    def __init__(self) -> None:
        super().__init__()

    def target_shape(self, height: int, width: int) -> tuple[int, ...]:
        return (len(self.classes),)

    def normalizer(self, target: Tensor) -> Tensor:
        return count((target > 0).any(1))

    def loss(self, prediction: Tensor, target: Tensor, normalizer: Tensor) -> Tensor:
        log = full_precision(prediction).log_softmax(1)
        target = target.to(log.dtype)
        total = torch.xlogy(target, target).sum() - (target * log).sum()  # a row of zeros adds nothing
        return per_label(total, normalizer)

    def indicator_counts(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The share of labelled images whose likeliest class is found."""
        known = (target > 0).any(1)
        hits = (prediction.argmax(1) == target.argmax(1)) & known
        return torch.cat([count(hits), count(known)])

    def metric(self) -> Metric:
        return SceneDistributionMetric()

    def from_prediction(self, prediction: Tensor) -> np.ndarray:
        return prediction.float().softmax(0).to("cpu").numpy()

    def caption(self, array: np.ndarray) -> str:
        if not (array > 0).any():
            return "?"
        best = int(array.argmax())
        return f"{self.classes[best]} {100 * array[best]:.0f}%"
