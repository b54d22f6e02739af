"""A folder of images, at any depth."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from harness.errors import UserError
from harness.images import image_files, open_image
from pretrain.sources.base import SOURCES, Paths, Source, existing_folder

_INSPECTED = 8
_CLASSES = 64
"""An image of more values than this is no map of class numbers."""


@SOURCES.register("folder")
class Folder(Source):
    """All images below a folder, in the order of their paths.

    Args:
        root: the folder.
        labels: ``folders``: the first sub-folder on the path is the image's class, for statistics only;
            images that lie in none are a class of their own.
    """

    def __init__(self, root: str | None = None, labels: Literal["none", "folders"] = "none") -> None:
        self.root = existing_folder(root)
        paths = image_files(self.root)
        if not paths:
            raise UserError(_no_images(self.root))
        if _are_label_maps([self.root / path for path in _spread(paths)]):
            raise UserError(
                f"the images in {self.root} look like maps of class numbers, not photographs: give the "
                "folder of the images they label (or name the files in a list, with --data.name list)"
            )
        self.paths = Paths(paths)
        self.classes: list[str] = []
        if labels == "folders":
            self.classes = sorted({_first_folder(path) for path in paths})
        self._class_numbers = {name: number for number, name in enumerate(self.classes)}

    def __len__(self) -> int:
        return len(self.paths)

    def open(self, number: int) -> Image.Image:
        """Read an image; see :meth:`Source.open`."""
        path = self.paths[number]
        return open_image(self.root / path, path)

    def name(self, number: int) -> str:
        """The path below the folder."""
        return self.paths[number]

    def label(self, number: int) -> int | None:
        """Number of the first sub-folder on the path, if asked for."""
        if not self.classes:
            return None
        return self._class_numbers[_first_folder(self.paths[number])]

    def fingerprint(self) -> str:
        """Hash of the paths below the folder: a moved folder is the same source."""
        return f"folder-{len(self)}-{self.paths.digest()}"


def _first_folder(path: str) -> str:
    """The first folder on a relative path, or nothing."""
    return path.rpartition(os.sep)[0].split(os.sep)[0]


def _no_images(root: Path) -> str:
    suffixes = Counter(
        os.path.splitext(name)[1].lower() or "no suffix" for _, _, names in os.walk(root) for name in names
    )
    if not suffixes:
        return f"the folder {root} is empty: give the folder of the images with --data.root DIR"
    found = ", ".join(f"{count} × {suffix}" for suffix, count in suffixes.most_common(3))
    return (
        f"the folder {root} holds no images, only other files ({found}), labels perhaps: "
        "give the folder of the images with --data.root DIR"
    )


def _spread(paths: list[str]) -> list[str]:
    return paths[:: max(1, len(paths) // _INSPECTED)][:_INSPECTED]


def _are_label_maps(paths: list[Path]) -> bool:
    """Whether every file is a single-channel PNG of few distinct values."""
    return all(_is_label_map(path) for path in paths)


def _is_label_map(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            if image.format != "PNG" or image.mode not in ("P", "L", "1", "I;16", "I"):
                return False
            values = np.unique(np.asarray(image))
    except Exception:  # a damaged file says nothing about the others
        return False
    # Class numbers are small and consecutive, but for the one that means "ignored".
    return len(values) <= _CLASSES and (len(values) < 2 or int(values[-2]) < 256)
