"""Two grey images in one: a task for each (Sabour et al., 2017; Sener and Koltun, 2018, section 4.1)."""

from __future__ import annotations

import numpy as np

from harness.errors import UserError
from harness.seeding import numpy_generator
from transfer.data._arrays import ArraySplit, held_out
from transfer.data.base import DataSet, Label, Split
from transfer.data.idx import IdxFolder

SIDE = 36
OFFSETS = {"left": 0, "right": 6}


class Pairs(DataSet):
    """For each image of a split another one of it, drawn once, both put on one canvas.

    Args:
        name: of the data set.
        folder: its idx files.
        classes: names of the ten classes.
        size: side of the images, pixels.
        seed: of the draw.
        val_count: training images that become the split ``val``.
        train_count: pairs of the training split; all when none.
        test_count: pairs of the test split; all when none.
    """

    def __init__(self, name: str, folder: IdxFolder, classes: tuple[str, ...], size: int, seed: int, val_count: int,
                 train_count: int | None, test_count: int | None) -> None:
        if size < 1:
            raise UserError(f"{name}: size is {size}: it must be 1 pixel or more")
        if val_count < 0:
            raise UserError(f"{name}: val_count is {val_count}: it must not be negative")
        for key, count in (("train_count", train_count), ("test_count", test_count)):
            if count is not None and count < 1:
                raise UserError(f"{name}: {key} is {count}: it must be at least 1")
        self.name, self.folder, self.classes = name, folder, classes
        self.size, self.seed, self.val_count = size, seed, val_count
        self.counts = {"train": train_count, "val": None, "test": test_count}
        self.splits = ("train", "val", "test") if val_count else ("train", "test")
        self._made: dict[str, tuple[np.ndarray, dict[str, np.ndarray]]] = {}

    @property
    def labels(self) -> dict[str, Label]:
        return {task: Label("classification", self.classes) for task in OFFSETS}

    def load(self, split: str) -> Split:
        if split not in self._made:
            self._made[split] = self._make(split)
        images, labels = self._made[split]
        return ArraySplit(split, images, {task: labels[task] for task in self.tasks})

    def _make(self, split: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        images, labels = self.folder.read("test" if split == "test" else "train")
        if self.val_count and split != "test":
            chosen = held_out(self.name, len(images), self.val_count, self.seed)
            chosen = chosen if split == "val" else ~chosen
            images, labels = images[chosen], labels[chosen]
        left, right = draw_pairs(len(images), self.counts[split], self.seed, split)
        return resize(compose(images[left], images[right]), self.size), {
            "left": labels[left].astype(np.int64), "right": labels[right].astype(np.int64)}

    def fingerprint(self) -> str:
        counts = "-".join(str(count) for count in (*self.counts.values(), self.val_count))
        return f"{self.name}-{self.folder.fingerprint()}-{self.size}-{self.seed}-{counts}"


def draw_pairs(length: int, count: int | None, seed: int, split: str) -> tuple[np.ndarray, np.ndarray]:
    """For each of the first ``count`` images itself and a different one, uniformly among all the others.

    Args:
        length: images there are.
        count: pairs; one for each image when none.
        seed: of the draw.
        split: its name, so that splits differ.
    """
    left = np.arange(length if count is None else min(count, length))
    steps = numpy_generator(seed, "pairs", split).integers(1, max(2, length), length)[: len(left)]
    return left, (left + steps) % length


def compose(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """``first`` at the top left and ``second`` six pixels lower and further right; the brighter pixel is seen.

    Args:
        first: uint8 ``[N, 28, 28]``.
        second: likewise.

    Returns:
        uint8 ``[N, 36, 36]``.

    Raises:
        UserError: the images do not fit.
    """
    count, height, width = first.shape
    if max(height, width) > SIDE - max(OFFSETS.values()):
        raise UserError(f"images of {height}x{width} pixels do not fit {SIDE}x{SIDE} twice: give files of 28x28")
    canvas = np.zeros((count, SIDE, SIDE), np.uint8)
    for task, images in (("left", first), ("right", second)):
        start = OFFSETS[task]
        place = canvas[:, start : start + height, start : start + width]
        np.maximum(place, images, out=place)
    return canvas


def resize(images: np.ndarray, side: int) -> np.ndarray:
    """Grey images uint8 ``[N, H, W]`` at another size, bilinear with area weights."""
    if images.shape[1:] == (side, side):
        return images
    import torch
    import torch.nn.functional as F

    result = np.empty((len(images), side, side), np.uint8)
    for start in range(0, len(images), 4096):  # so that no second set is in memory
        part = torch.from_numpy(images[start : start + 4096])[:, None]
        part = F.interpolate(part, (side, side), mode="bilinear", antialias=True, align_corners=False)
        result[start : start + 4096] = part[:, 0].numpy()
    return result
