"""COCO's images."""

from __future__ import annotations

from typing import Literal

from harness.errors import UserError
from pretrain.sources._files import Files, find_parts, other_counts, require_images
from pretrain.sources._listing import list_images
from pretrain.sources.base import SOURCES, existing_folder

_PUBLISHED = {"train2017": 118287, "unlabeled2017": 123403}
Split = Literal["train2017", "unlabeled2017"]


@SOURCES.register("coco")
class Coco(Files):
    """The images of COCO (Lin et al. 2014, cocodataset.org), without annotations.

    Args:
        root: the folder that train2017.zip and unlabeled2017.zip were unpacked in.
        splits: which of them.
    """

    def __init__(self, root: str | None = None, splits: tuple[Split, ...] = ("train2017",)) -> None:
        folder = existing_folder(root)
        wanted = sorted(set(splits))
        if not wanted:
            raise UserError(f"data.splits is empty: give some of {', '.join(_PUBLISHED)}")
        if [folder.resolve().name] == wanted:
            folder = folder.resolve().parent
        folder, parts = find_parts(
            folder, ("", "images", "coco", "coco/images"),
            lambda place: wanted if all((place / split).is_dir() for split in wanted) else [],
            " and ".join(f"{split}/*.jpg" for split in wanted))
        paths, remarks = list_images(folder, parts)
        require_images(paths, folder)
        super().__init__("coco", folder, paths, remarks=[*remarks, *other_counts(paths, _PUBLISHED, "COCO")])
