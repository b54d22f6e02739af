"""What tasks with one class per pixel share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from harness.errors import UserError
from transfer.tasks._losses import count, full_precision, per_label
from transfer.tasks._pictures import palette
from transfer.tasks.base import Task


class PixelClasses(Task):
    """Cross-entropy over the labelled pixels; targets are class indices, 255 ignored."""

    primary = "mIoU"
    family = "categorical"

    def bind(self, name: str, classes: Sequence[str] = ()) -> Task:
        if not 2 <= len(classes) <= 255:
            raise UserError(f"task '{name}' needs 2 to 255 classes (255 means no label), not {len(classes)}")
        return super().bind(name, classes)

    @property
    def channels(self) -> int:
        return len(self.classes)

    def normalizer(self, target: Tensor) -> Tensor:
        return count(target != self.ignored)

    def loss(self, prediction: Tensor, target: Tensor, normalizer: Tensor) -> Tensor:
        total = F.cross_entropy(
            full_precision(prediction), target.long(), ignore_index=self.ignored, reduction="sum"
        )
        return per_label(total, normalizer)

    def indicator_counts(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The share of labelled pixels whose class is found."""
        # max is several times faster than argmax over the channels on a CPU
        hits = prediction.max(1).indices == target  # there is no class 255
        return torch.cat([count(hits), count(target != self.ignored)])

    def from_prediction(self, prediction: Tensor) -> np.ndarray:
        return prediction.argmax(0).to("cpu").numpy().astype(np.uint8)

    def stored(self, array: np.ndarray) -> Image.Image:
        """Class indices, with the colours of :meth:`picture` as the file's palette."""
        image = Image.fromarray(array)
        image.putpalette(palette(len(self.classes)).tobytes())
        return image

    def legend(self, array: np.ndarray) -> list[tuple[str, tuple[int, int, int]]]:
        """The classes that cover at least half a percent, the largest first."""
        shares = np.bincount(array.ravel(), minlength=256)[:len(self.classes)] / array.size
        seen = [int(index) for index in np.argsort(-shares, kind="stable") if shares[index] >= 0.005]
        return [(self.classes[index], tuple(palette(len(self.classes))[index].tolist())) for index in seen]

    def picture(self, array: np.ndarray, truth: np.ndarray | None = None) -> np.ndarray:
        return palette(len(self.classes))[array]
