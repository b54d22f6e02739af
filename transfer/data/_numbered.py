"""Numbered npy files in a folder for each kind, as MTAN's program has them."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from transfer.data._files import plane, read_numbers
from transfer.data._folder import Field, FolderData
from transfer.data._values import class_map, picture_of, positive, shifted, unit_vectors
from transfer.data.base import Label


class NumberedData(FolderData):
    """``{train,val}/{image,label,…}/{i}.npy``: floats, channels last, −1 where there is no class."""

    image = "{folder}/image/{base}.npy"

    def names_of(self, split: str) -> Sequence[str]:
        numbers = [name.removesuffix(".npy") for name in self.listing.names(f"{split}/image") if name.endswith(".npy")]
        return [f"{split}/{number}" for number in sorted(numbers, key=lambda text: (len(text), text))]

    @staticmethod
    def read_image(path: Path) -> np.ndarray:
        """uint8 ``[H, W, 3]``."""
        return picture_of(read_numbers(path), path)


@dataclass(frozen=True)
class Classes:
    """Reader of a class map.

    Args:
        of: class index here of each stored one.
    """

    of: tuple[int, ...]

    def __call__(self, path: Path) -> np.ndarray:
        stored = class_map(plane(read_numbers(path), path), shifted(len(self.of)), path)
        return stored if self.of == tuple(range(len(self.of))) else _take(self.of).take(stored)


@dataclass(frozen=True)
class IsClass:
    """Reader of one class as a task of its own: 1, 0, and 255 where the map has no label."""

    classes: Classes
    index: int

    def __call__(self, path: Path) -> np.ndarray:
        found = _latest(self.classes, path, os.stat(path).st_mtime_ns)
        return np.where(found == 255, found, found == self.index).astype(np.uint8)


@functools.lru_cache(maxsize=1)
def _latest(read: Classes, path: Path, changed: int) -> np.ndarray:
    """One map is read by a dozen tasks in turn."""
    return read(path)


@functools.lru_cache
def _take(of: tuple[int, ...]) -> np.ndarray:
    table = np.full(256, 255, np.uint8)
    table[: len(of)] = of
    return table


def class_fields(names: Sequence[str], read: Classes, paths: tuple[str, ...], binary: bool) -> dict[str, Field]:
    """The task ``semseg``, or one binary task for each class."""
    if not binary:
        return {"semseg": Field(Label("semseg", tuple(names)), read, paths)}
    return {name.replace(" ", "_"): Field(Label("binary_segmentation"), IsClass(read, index), paths)
            for index, name in enumerate(names)}


def read_positive(path: Path) -> np.ndarray:
    """Depth or inverse depth, 0 where unknown."""
    return positive(plane(read_numbers(path), path))


def read_directions(path: Path) -> np.ndarray:
    """Unit vectors, 0 where unknown."""
    return unit_vectors(read_numbers(path), path)
