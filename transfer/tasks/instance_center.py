"""Where the centre of a pixel's instance is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from transfer.metrics.instance_center import InstanceCenter as InstanceCenterMetric
from transfer.tasks._losses import count, full_precision, per_label
from transfer.tasks._pictures import wheel
from transfer.tasks.base import TASKS, Task, resize_prediction
from transfer.transforms import Geometry


@TASKS.register("instance_center")
class InstanceCenter(Task):
    """Offset (x to the right, y down) of each pixel to the centre of its instance, in pixels: L1, error in pixels.

    Exactly (0, 0) is "no instance", and no label. Mirroring negates x, rotation turns the offset, and enlarging a
    picture multiplies it; a prediction made at another size than the label's is brought to the label's pixels.

    Source: Sener and Koltun 2018, section 4.3; Vandenhende 2022, section 4.4 (Cityscapes).
    """

    dtype = np.float32
    ignored = 0
    primary = "px_error"
    units = InstanceCenterMetric.units
    higher_is_better = False
    channels = 2

    def target_shape(self, height: int, width: int) -> tuple[int, ...]:
        return height, width, 2

    def normalizer(self, target: Tensor) -> Tensor:
        return count((target != 0).any(1))

    def loss(self, prediction: Tensor, target: Tensor, normalizer: Tensor) -> Tensor:
        offset = full_precision(prediction)
        known = (target != 0).any(1, keepdim=True)
        # where nothing is known the target is the prediction itself: no error and no gradient
        target = torch.where(known, target.to(offset.dtype), offset.detach())
        return per_label(F.l1_loss(offset, target, reduction="sum") / 2, normalizer)

    def indicator_counts(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The share of labelled pixels whose centre is missed by less than a quarter of its distance."""
        known = (target != 0).any(1)
        missed = (full_precision(prediction) - target).square().sum(1)
        within = (missed < target.square().sum(1) / 16) & known
        return torch.cat([count(within), count(known)])

    def metric(self) -> Metric:
        return InstanceCenterMetric()

    def transform_values(self, target: np.ndarray, geometry: Geometry) -> np.ndarray:
        if geometry.flip:
            np.negative(target[..., 0], out=target[..., 0])
        if geometry.angle:
            cos, sin = math.cos(math.radians(geometry.angle)), math.sin(math.radians(geometry.angle))
            x, y = target[..., 0], target[..., 1]  # y points down, so a counter-clockwise turn has its sign changed
            # the right-hand sides are complete before either component is overwritten
            target[..., 0], target[..., 1] = cos * x + sin * y, cos * y - sin * x
        down, across = geometry.scale
        if (down, across) != (1, 1):
            target *= np.array([across, down], np.float32)
        return target

    def resized(self, prediction: Tensor, size: Sequence[int]) -> Tensor:
        factors = [size[1] / prediction.shape[-1], size[0] / prediction.shape[-2]]
        result = resize_prediction(prediction, size)
        return result * result.new_tensor(factors).reshape(2, 1, 1)

    def mirrored_values(self, prediction: Tensor) -> Tensor:
        return prediction * prediction.new_tensor([-1.0, 1.0]).reshape(2, 1, 1)

    def from_prediction(self, prediction: Tensor) -> np.ndarray:
        return prediction.float().permute(1, 2, 0).to("cpu").numpy()

    def picture(self, array: np.ndarray, truth: np.ndarray | None = None) -> np.ndarray:
        known = array if truth is None else truth
        drawn = wheel(array, float(np.percentile(np.hypot(known[..., 0], known[..., 1]), 98)) or 1.0)
        drawn[(array == 0).all(-1)] = 0
        return drawn
