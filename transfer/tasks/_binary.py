"""What tasks with a yes or no for each pixel share."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from transfer.tasks._pictures import gray
from transfer.tasks.base import Task


class BinaryMap(Task):
    """One logit for each pixel; targets are 0 or 1, 255 ignored."""

    channels = 1

    def from_prediction(self, prediction: Tensor) -> np.ndarray:
        return prediction[0].float().sigmoid().to("cpu").numpy()

    def picture(self, array: np.ndarray, truth: np.ndarray | None = None) -> np.ndarray:
        return gray(np.where(array == self.ignored, 0.5, array))
