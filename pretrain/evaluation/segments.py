"""Segments of images, and what their masks call them."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from harness.errors import UserError
from pretrain.evaluation.labelled import IGNORED


class Segments:
    """The segments of all images of a split.

    Descriptors lie in a file without a name, which the system can page out and which is gone with this object; of 10
    582 images with 15 segments of 2048 channels it has 1.3 GB.

    Args:
        folder: where there is room for that file.
        classes: how many classes masks have.
        labelled: leave out segments without any labelled pixel.
    """

    def __init__(self, folder: Path, classes: int, labelled: bool = False) -> None:
        self.classes, self.labelled, self.channels, self._where = classes, labelled, 0, folder
        self._images: list[tuple[tuple[int, int], tuple[int, int], bytes]] = []
        self._members: list[np.ndarray] = []
        self._counts: list[np.ndarray] = []
        try:
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        except OSError as error:
            raise self._no_room(error) from error

    def _no_room(self, error: OSError) -> UserError:
        return UserError(f"cannot keep the descriptors of segments in {self._where}: {error.strerror}: free some "
                         "space, or choose another --output")

    def __len__(self) -> int:
        return sum(map(len, self._members))

    def add(self, assignment: np.ndarray, mask: np.ndarray, descriptors: Tensor) -> None:
        """The next image.

        Args:
            assignment: int ``[h, w]``: the segment of each pixel, below S and 256; may be smaller than the image.
            mask: uint8 ``[H, W]``, classes; 255 counts for nothing.
            descriptors: ``[S, C]``; brought to length 1.
        """
        rows = F.normalize(descriptors.float(), dim=1).cpu().numpy()
        counts = class_counts(enlarge(assignment, mask.shape), mask, len(rows), self.classes)
        kept = counts.any(1) if self.labelled else np.ones(len(rows), bool)
        self.channels = rows.shape[1]
        self._members.append(np.stack([np.full(kept.sum(), len(self._images)), np.flatnonzero(kept)], 1))
        self._counts.append(counts[kept])
        self._images.append((assignment.shape, mask.shape, zlib.compress(assignment.astype(np.uint8).tobytes(), 1)))
        try:
            self._file.write(rows[kept].data)
        except OSError as error:
            raise self._no_room(error) from error

    def members(self) -> np.ndarray:
        """The image of each segment, and which of its segments it is: int64 ``[N, 2]``."""
        return np.concatenate(self._members)

    def counts(self) -> np.ndarray:
        """Labelled pixels of each class in each segment, int64 ``[N, classes]``."""
        return np.concatenate(self._counts)

    def descriptors(self) -> np.ndarray:
        """float32 ``[N, C]``, mapped from the file; rows have length 1."""
        try:
            self._file.flush()
        except OSError as error:
            raise self._no_room(error) from error
        rows = len(self)
        if not rows:
            return np.empty((0, self.channels), np.float32)  # nothing cannot be mapped
        return np.memmap(self._file, np.float32, "r", shape=(rows, self.channels))

    def map(self, image: int) -> np.ndarray:
        """The segment of each pixel of an image, uint8 ``[H, W]``."""
        small, full, content = self._images[image]
        return enlarge(np.frombuffer(zlib.decompress(content), np.uint8).reshape(small), full)


def enlarge(values: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """``[h, w]`` -> ``[H, W]``: each pixel takes the value in whose cell its middle lies."""
    rows, columns = (((np.arange(long) + 0.5) * short / long).astype(np.int64)
                     for short, long in zip(values.shape, size, strict=True))
    return values[rows[:, None], columns]


def class_counts(segments: np.ndarray, mask: np.ndarray, count: int, classes: int) -> np.ndarray:
    """Labelled pixels of each class in each segment.

    Args:
        segments: int ``[H, W]``, below ``count``.
        mask: uint8 ``[H, W]``; 255 counts for nothing.
        count: number of segments.
        classes: number of classes.

    Returns:
        int64 ``[count, classes]``.
    """
    labelled = mask != IGNORED
    pairs = segments[labelled].astype(np.int64) * classes + mask[labelled]
    return np.bincount(pairs, minlength=count * classes).reshape(count, classes)


def majority(counts: np.ndarray) -> np.ndarray:
    """The class that most labelled pixels have, the lower of two that tie; -1 where none is labelled: int64 ``[N]``."""
    return np.where(counts.any(1), counts.argmax(1), -1)


def class_ious(counts: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Intersection over union of each class, over all pixels of a set.

    Args:
        counts: int ``[N, classes]``: pixels of each true class in each segment.
        predicted: int ``[N]``: the class that all pixels of the segment are given.

    Returns:
        From 0 to 1, float64 ``[classes]``; nan for a class that is neither there nor predicted anywhere.
    """
    given = np.zeros((counts.shape[1], counts.shape[1]), np.int64)
    np.add.at(given, predicted, counts)
    hit = np.diag(given).astype(np.float64)
    union = given.sum(0) + given.sum(1) - hit
    return np.divide(hit, union, out=np.full(len(hit), np.nan), where=union > 0)
