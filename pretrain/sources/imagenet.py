"""ImageNet's images."""

from __future__ import annotations

import re
from pathlib import Path

from pretrain.sources._files import Files, find_parts, require_images
from pretrain.sources._listing import list_images
from pretrain.sources.base import SOURCES, existing_folder

_CLASS = re.compile(r"n\d{8}")
_IMAGES, _CLASSES = 1281167, 1000


@SOURCES.register("imagenet")
class ImageNet(Files):
    """The training images of ImageNet (Russakovsky et al. 2015), or of a set in its form: a folder for each class.

    Classes serve statistics alone.

    Args:
        root: the folder with train/nXXXXXXXX/*.JPEG, also as ILSVRC/Data/CLS-LOC/train, or train itself.
    """

    def __init__(self, root: str | None = None) -> None:
        folder, classes = find_parts(
            existing_folder(root), ("train", "ILSVRC/Data/CLS-LOC/train", "Data/CLS-LOC/train", ""), _class_folders,
            "train/nXXXXXXXX/*.JPEG, a folder for each class")
        paths, remarks = list_images(folder, classes)
        require_images(paths, folder)
        super().__init__("imagenet", folder, paths, labelled=True, remarks=remarks)
        if len(self.classes) == _CLASSES and len(paths) != _IMAGES:
            self._remarks.append(f"ImageNet was published with {_IMAGES} training images, and {len(paths)} are there")


def _class_folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if _CLASS.fullmatch(entry.name) and entry.is_dir())
