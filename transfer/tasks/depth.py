"""Depth along the camera axis."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from transfer.metrics.depth import Depth as DepthMetric
from transfer.tasks._losses import count, full_precision, per_label
from transfer.tasks._pictures import ramp
from transfer.tasks.base import TASKS, Task
from transfer.transforms import Geometry


@TASKS.register("depth")
class Depth(Task):
    """Metres along the camera axis, 0 where unknown: L1, RMSE (Vandenhende 2022, chapter 5).

    Enlarging a picture by s without changing the camera's focal length is coming s times nearer, so
    depths are divided by s.
    """

    dtype = np.float32
    ignored = 0
    primary = "RMSE"
    higher_is_better = False
    channels = 1

    def normalizer(self, target: Tensor) -> Tensor:
        return count(target > 0)

    def loss(self, prediction: Tensor, target: Tensor, normalizer: Tensor) -> Tensor:
        depth = full_precision(prediction)[:, 0]
        # where nothing is known the target is the prediction itself: no error and no gradient
        known = torch.where(target > 0, target.to(depth.dtype), depth.detach())
        return per_label(F.l1_loss(depth, known, reduction="sum"), normalizer)

    def indicator_counts(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The share of labelled pixels with max(d / d*, d* / d) < 1.25."""
        depth = prediction[:, 0]
        known = target > 0
        within = (depth < 1.25 * target) & (1.25 * depth > target) & known
        return torch.cat([count(within), count(known)])

    def metric(self) -> Metric:
        return DepthMetric()

    def transform_values(self, target: np.ndarray, geometry: Geometry) -> np.ndarray:
        if geometry.zoom != 1:
            target /= geometry.zoom
        return target

    def from_prediction(self, prediction: Tensor) -> np.ndarray:
        return prediction[0].float().to("cpu").numpy()

    def picture(self, array: np.ndarray, truth: np.ndarray | None = None) -> np.ndarray:
        known = array if truth is None else truth
        known = known[known > 0]
        low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
        drawn = ramp(array, low, high)
        drawn[array == 0] = 0
        return drawn
