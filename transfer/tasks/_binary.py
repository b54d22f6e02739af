"""What tasks with a yes or no for each pixel share."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from transfer.tasks._losses import count
from transfer.tasks._pictures import Scale, gray
from transfer.tasks.base import Task


class BinaryMap(Task):
    """One logit for each pixel; targets are 0 or 1, 255 ignored."""

    channels = 1
    family = "bernoulli"

    def indicator_counts(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The F-measure 2 TP / (found + true) at probability ½: accuracy says little where positives are rare."""
        found, positive = (prediction[:, 0] > 0) & (target <= 1), target == 1
        return torch.cat([2 * count(found & positive), count(found) + count(positive)])

    def from_prediction(self, prediction: Tensor) -> np.ndarray:
        return prediction[0].float().sigmoid().to("cpu").numpy()

    def scale(self, array: np.ndarray) -> Scale:
        return Scale(0.0, 1.0, colors="gray")

    def picture(self, array: np.ndarray, truth: np.ndarray | None = None) -> np.ndarray:
        return gray(np.where(array == self.ignored, 0.5, array))

    def stored(self, array: np.ndarray) -> Image.Image:
        """Probabilities of 0 to 1 as 0 to 255."""
        return Image.fromarray((np.clip(array, 0, 1) * 255).round().astype(np.uint8))
