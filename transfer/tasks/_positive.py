"""What tasks with a positive quantity for each pixel share."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from transfer.tasks._losses import count, full_precision, per_label
from transfer.tasks._pictures import Scale, ramp
from transfer.tasks.base import Task


class PositiveMap(Task):
    """One value for each pixel, 0 where unknown: L1, the mean absolute error over labelled pixels."""

    dtype = np.float32
    ignored = 0
    higher_is_better = False
    channels = 1
    unit = ""
    stored_scale = 1000.0
    """What a value is multiplied by in a 16-bit PNG."""

    def normalizer(self, target: Tensor) -> Tensor:
        return count(target > 0)

    def loss(self, prediction: Tensor, target: Tensor, normalizer: Tensor) -> Tensor:
        value = full_precision(prediction)[:, 0]
        # where nothing is known the target is the prediction itself: no error and no gradient
        known = torch.where(target > 0, target.to(value.dtype), value.detach())
        return per_label(F.l1_loss(value, known, reduction="sum"), normalizer)

    def indicator_counts(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The share of labelled pixels with max(v / v*, v* / v) < 1.25."""
        value = prediction[:, 0]
        known = target > 0
        within = (value < 1.25 * target) & (1.25 * value > target) & known
        return torch.cat([count(within), count(known)])

    def from_prediction(self, prediction: Tensor) -> np.ndarray:
        return prediction[0].float().to("cpu").numpy()

    def stored(self, array: np.ndarray) -> Image.Image:
        """Values times :attr:`stored_scale`, 16 bits; what a file cannot hold is clipped."""
        return Image.fromarray(np.clip(np.rint(array * self.stored_scale), 0, 65535).astype(np.uint16))

    def scale(self, array: np.ndarray) -> Scale:
        known = array[array > 0]
        low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
        return Scale(low, high, self.unit)

    def picture(self, array: np.ndarray, truth: np.ndarray | None = None) -> np.ndarray:
        scale = self.scale(array if truth is None else truth)
        drawn = ramp(array, scale.low, scale.high, scale.colors)
        drawn[array == 0] = 0
        return drawn
