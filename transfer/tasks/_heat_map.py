"""What tasks with a heat map share."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from transfer.tasks._losses import count, full_precision, per_label
from transfer.tasks._pictures import Scale, ramp
from transfer.tasks.base import Task


class HeatMap(Task):
    """A value from 0 to 1 for each pixel, −1 where unknown: L1 over the labelled pixels.

    The value is regressed as it is, without a sigmoid.
    """

    dtype = np.float32
    ignored = -1
    higher_is_better = False
    channels = 1

    def normalizer(self, target: Tensor) -> Tensor:
        return count(target >= 0)

    def loss(self, prediction: Tensor, target: Tensor, normalizer: Tensor) -> Tensor:
        value = full_precision(prediction)[:, 0]
        # where nothing is known the target is the prediction itself: no error and no gradient
        known = torch.where(target >= 0, target.to(value.dtype), value.detach())
        return per_label(F.l1_loss(value, known, reduction="sum"), normalizer)

    def indicator_counts(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The F-measure 2 TP / (found + true) of the pixels above ½: nearly all of a heat map is empty."""
        found, positive = (prediction[:, 0] > 0.5) & (target >= 0), target > 0.5
        return torch.cat([2 * count(found & positive), count(found) + count(positive)])

    def from_prediction(self, prediction: Tensor) -> np.ndarray:
        return prediction[0].float().to("cpu").numpy()

    def stored(self, array: np.ndarray) -> Image.Image:
        """Values of 0 to 1 as 0 to 255."""
        return Image.fromarray((np.clip(array, 0, 1) * 255).round().astype(np.uint8))

    def scale(self, array: np.ndarray) -> Scale:
        return Scale(0.0, 1.0, colors="magma")

    def picture(self, array: np.ndarray, truth: np.ndarray | None = None) -> np.ndarray:
        scale = self.scale(array)
        drawn = ramp(array, scale.low, scale.high, scale.colors)
        drawn[array == self.ignored] = 128
        return drawn
