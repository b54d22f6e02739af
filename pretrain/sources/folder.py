"""A folder of images, at any depth."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from harness.errors import UserError
from pretrain.sources._files import Files
from pretrain.sources._listing import list_images
from pretrain.sources.base import SOURCES, Paths, existing_folder

_INSPECTED = 8
_CLASSES = 64
"""An image of more values than this is no map of class numbers."""


@SOURCES.register("folder")
class Folder(Files):
    """All images below a folder, in the order of their paths.

    Args:
        root: the folder.
        labels: ``folders``: the first sub-folder on the path is the image's class, for statistics only;
            images that lie in none are a class of their own.
    """

    def __init__(self, root: str | None = None, labels: Literal["none", "folders"] = "none") -> None:
        folder = existing_folder(root)
        paths, remarks = list_images(folder)
        if not len(paths):
            raise UserError(_no_images(folder))
        if _are_label_maps([folder / path for path in _spread(paths)]):
            raise UserError(
                f"the images in {folder} look like maps of class numbers, not photographs: give the "
                "folder of the images they label (or name the files in a list, with --data.name list)"
            )
        super().__init__("folder", folder, paths, labels == "folders", remarks)


def _no_images(root: Path) -> str:
    suffixes = Counter(
        os.path.splitext(name)[1].lower() or "no suffix" for _, _, names in os.walk(root) for name in names
    )
    if not suffixes:
        return f"the folder {root} is empty: give the folder that holds the images"
    if suffixes[".tar"]:
        return f"the folder {root} holds no images but {suffixes['.tar']} × .tar: use --data.name shards for tar files"
    found = ", ".join(f"{count} × {suffix}" for suffix, count in suffixes.most_common(3))
    return (
        f"the folder {root} holds no images, only other files ({found}), labels perhaps: "
        "give the folder that holds the images"
    )


def _spread(paths: Paths) -> list[str]:
    return [paths[number] for number in range(0, len(paths), max(1, len(paths) // _INSPECTED))][:_INSPECTED]


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
