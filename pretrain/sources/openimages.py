"""Open Images' images."""

from __future__ import annotations

import re
from pathlib import Path

from pretrain.sources._files import Files, find_parts, require_images
from pretrain.sources._listing import list_images
from pretrain.sources.base import SOURCES, existing_folder

_PART = re.compile(r"train(_[0-9a-f])?")


@SOURCES.register("openimages")
class OpenImages(Files):
    """The training images of Open Images (Kuznetsova et al. 2020, storage.googleapis.com/openimages).

    Args:
        root: the folder with train/*.jpg, or with train_0 to train_f as train_0.tar.gz … unpack (all that
            are there count).
    """

    def __init__(self, root: str | None = None) -> None:
        folder, parts = find_parts(existing_folder(root), ("", "images"), _parts, "train/*.jpg, or train_0 to train_f")
        paths, remarks = list_images(folder, parts)
        require_images(paths, folder)
        super().__init__("openimages", folder, paths, remarks=remarks)


def _parts(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if _PART.fullmatch(entry.name) and entry.is_dir())
