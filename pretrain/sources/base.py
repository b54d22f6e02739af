"""What every source of images has, and the registry of sources."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from harness.errors import UserError
from harness.images import open_image
from harness.registry import Registry
from harness.sampling import shuffled

SOURCES: Registry[type[Source]] = Registry("image source", "pretrain.sources")


class Source(ABC):
    """Numbered images. Keyword parameters of a subclass's constructor are its options.

    A subclass gives :meth:`encoded` where its images are files or parts of files, and :meth:`open`
    where they are arrays.
    """

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    def encoded(self, number: int) -> Path | bytes | None:
        """An image as it is stored: the path of its file, or the file's bytes; none where it is no file.

        Raises:
            harness.images.UnreadableImage: the bytes cannot be read.
        """
        return None

    def open(self, number: int) -> Image.Image | np.ndarray:
        """Read an image.

        Args:
            number: 0 to ``len(self) - 1``.

        Returns:
            A Pillow image in mode RGB, or uint8 ``[height, width, 3]``.

        Raises:
            harness.images.UnreadableImage: it cannot be read.
        """
        stored = self.encoded(number)
        if stored is None:
            raise NotImplementedError(f"{type(self).__name__} gives neither open() nor encoded()")
        return open_image(stored, self.name(number))

    @property
    def samples_per_epoch(self) -> int:
        """How many images an epoch has; the same in every epoch."""
        return len(self)

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """The images of an epoch in their order, a function of the arguments alone.

        Returns:
            int64 ``[samples_per_epoch]``, numbers of images; by default each of them once.
        """
        return shuffled(len(self), seed, epoch)

    def remarks(self) -> list[str]:
        """What the user should know of these images, a line each: what is missing or damaged."""
        return []

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

    def __iter__(self) -> Iterator[str]:
        everything, start = self._bytes.tobytes(), 0
        for end in self._ends.tolist():
            yield os.fsdecode(everything[start:end])
            start = end

    def __getitem__(self, number: int) -> str:
        if not 0 <= number < len(self):
            raise IndexError(number)
        start = self._ends[number - 1] if number else 0
        return os.fsdecode(self._bytes[start : self._ends[number]].tobytes())

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """All strings as one run of bytes, uint8, and where each of them ends, int64 ``[N]``."""
        return self._bytes, self._ends

    @classmethod
    def from_arrays(cls, text: np.ndarray, ends: np.ndarray) -> Paths:
        """The inverse of :meth:`arrays`."""
        paths = cls.__new__(cls)
        paths._bytes, paths._ends = text, ends
        return paths

    def digest(self) -> str:
        """Hash of the strings and their order."""
        return hashlib.blake2b(self._bytes.tobytes() + self._ends.tobytes(), digest_size=8).hexdigest()


def existing_folder(root: str | None, option: str = "data.root") -> Path:
    """The folder that an option names.

    Raises:
        UserError: none was given, or there is no such folder, or it cannot be reached.
    """
    if not root:
        raise UserError(f"{option} is not set: give the folder of the images with --{option} DIR")
    path = Path(root).expanduser()
    try:
        if path.is_dir():
            return path
        what = "is a file, not a folder" if path.is_file() else "does not exist"
    except OSError as error:
        what = f"cannot be reached ({error.strerror})"
    raise UserError(f"the folder {path} {what}: give the folder of the images with --{option} DIR")
