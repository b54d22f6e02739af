"""What every source of images has, and the registry of sources."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from harness.errors import UserError
from harness.registry import Registry

SOURCES: Registry[type[Source]] = Registry("image source", "pretrain.sources")


class Source(ABC):
    """Numbered images. Keyword parameters of a subclass's constructor are its options."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def open(self, number: int) -> Image.Image | np.ndarray:
        """Read an image.

        Args:
            number: 0 to ``len(self) - 1``.

        Returns:
            A Pillow image in mode RGB, or uint8 ``[height, width, 3]``.

        Raises:
            harness.images.UnreadableImage: it cannot be read.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """A short text that is the same exactly when the images and their order are."""

    def name(self, number: int) -> str:
        """What to call an image in messages: its path, or its number."""
        return str(number)

    def label(self, number: int) -> int | None:
        """The image's class, where one is known; used for statistics, never for training."""
        return None

    def labels(self) -> np.ndarray | None:
        """:meth:`label` of all images, int64 ``[N]``, or none where classes are not known."""
        if self.label(0) is None:
            return None
        return np.array([self.label(number) for number in range(len(self))], dtype=np.int64)


class Paths(Sequence[str]):
    """Many strings in one block of memory, which forked workers share without copying it.

    Args:
        paths: the strings.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        encoded = [os.fsencode(path) for path in paths]
        self._ends = np.cumsum([len(path) for path in encoded], dtype=np.int64)
        self._bytes = np.frombuffer(b"".join(encoded), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, number: int) -> str:
        if not 0 <= number < len(self):
            raise IndexError(number)
        start = self._ends[number - 1] if number else 0
        return os.fsdecode(self._bytes[start : self._ends[number]].tobytes())

    def digest(self) -> str:
        """Hash of the strings and their order."""
        return hashlib.blake2b(self._bytes.tobytes() + self._ends.tobytes(), digest_size=8).hexdigest()


def existing_folder(root: str | None, option: str = "data.root") -> Path:
    """The folder that an option names.

    Raises:
        UserError: none was given, or there is no such folder.
    """
    if not root:
        raise UserError(f"{option} is not set: give the folder of the images with --{option} DIR")
    path = Path(root).expanduser()
    if not path.is_dir():
        what = "is a file, not a folder" if path.is_file() else "does not exist"
        raise UserError(f"the folder {path} {what}: give the folder of the images with --{option} DIR")
    return path
