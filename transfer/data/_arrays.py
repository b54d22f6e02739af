"""Sets of small images, whole in memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.errors import UserError
from harness.seeding import numpy_generator
from transfer.data.base import Sample, Samples, Split


class ArraySplit(Split):
    """Images of the whole set in memory, with one label of each task for each image.

    Args:
        name: of the split.
        images: uint8 ``[N, H, W]``, or ``[N, H, W, 3]``.
        labels: ``[N]`` by task; negative where there is none.
    """

    def __init__(self, name: str, images: np.ndarray, labels: dict[str, np.ndarray]) -> None:
        self.name, self.labels = name, labels
        self.images = images if images.ndim == 4 else images[..., None]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        targets = {task: labels[index] for task, labels in self.labels.items() if labels[index] >= 0}
        return {"image": self.images[index], "id": f"{self.name}/{index:06d}", "targets": targets}

    def batch(self, indices: Sequence[int]) -> Samples:
        return {"images": self.images[indices], "ids": [f"{self.name}/{index:06d}" for index in indices],
                "targets": {task: labels[indices] for task, labels in self.labels.items()}}


def held_out(name: str, length: int, count: int, seed: int) -> np.ndarray:
    """Which training images make the validation split: ``[length]`` bool, drawn once.

    Raises:
        UserError: fewer than two would be left for training, or the count is negative.
    """
    if count < 0:
        raise UserError(f"{name}: val_count is {count}: it must not be negative")
    if count > length - 2:
        raise UserError(f"{name}: val_count {count} leaves nothing of {length} training images: make it smaller")
    chosen = np.zeros(length, bool)
    chosen[numpy_generator(seed, "held out").choice(length, count, replace=False)] = True
    return chosen
