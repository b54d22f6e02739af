"""What a layout is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from harness.registry import Registry
from scenes.classes import SEMSEG_CLASSES
from scenes.scene import Scene

LAYOUTS: Registry[type[Layout]] = Registry("layout", "scenes.export")

View = dict[str, np.ndarray]
"""What :func:`scenes.render` returns."""

JPEG_QUALITY = 95


class Layout(ABC):
    """Writes views into a folder as a published data set has them.

    Args:
        folder: new and empty.

    Attributes:
        size: height and width of the views that it is usually written with, small.
        splits: what the publication calls its splits.
        counts: samples of each split that are written when nothing else is asked for.
        quantisation: how far labels that are read back may be from those written, in words.
    """

    size: ClassVar[tuple[int, int]] = (96, 128)
    splits: ClassVar[tuple[str, ...]] = ("train", "val")
    counts: ClassVar[dict[str, int]] = {"train": 8, "val": 4, "test": 4}
    quantisation: ClassVar[str] = "none"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def write(self, split: str, number: int, view: View, scene: Scene) -> None:
        """One sample.

        Args:
            split: one of :attr:`splits`.
            number: of the sample in the split, from 0.
            view: its picture and labels.
            scene: what is seen.
        """

    def finish(self) -> None:  # noqa: B027 - not every layout has any
        """Lists and tables, when all samples are written."""

    # -- files ------------------------------------------------------------------------------------

    def path(self, relative: str) -> Path:
        """A file's place; its folder is made."""
        path = self.folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def jpeg(self, relative: str, image: np.ndarray) -> None:
        """A picture, with the losses of JPEG."""
        Image.fromarray(image).save(self.path(relative), "JPEG", quality=JPEG_QUALITY)

    def image(self, relative: str, array: np.ndarray) -> None:
        """Colours or numbers without loss, in the format of the extension: uint8 or uint16."""
        Image.fromarray(np.ascontiguousarray(array)).save(self.path(relative))

    def numbers(self, relative: str, array: np.ndarray) -> None:
        """An npy file."""
        np.save(self.path(relative), array, allow_pickle=False)

    def matlab(self, relative: str, content: dict[str, Any]) -> None:
        """A MATLAB file."""
        from scipy.io import savemat

        savemat(self.path(relative), content, do_compression=True)

    def text(self, relative: str, lines: list[str]) -> None:
        """A text file."""
        self.path(relative).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def table(numbers: dict[str, int], dtype: type = np.uint8) -> np.ndarray:
    """The number that a layout stores for each class of scenes.

    Args:
        numbers: by the class's name, all of them.
        dtype: of the result.
    """
    return np.array([numbers[name] for name in SEMSEG_CLASSES], dtype)
