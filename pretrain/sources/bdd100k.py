"""BDD100K's images."""

from __future__ import annotations

from typing import Literal

from harness.errors import UserError
from pretrain.sources._files import Files, find_parts, other_counts, require_images
from pretrain.sources._listing import list_images
from pretrain.sources.base import SOURCES, existing_folder

_PUBLISHED = {"train": 70000, "val": 10000, "test": 20000}
Split = Literal["train", "val", "test"]


@SOURCES.register("bdd100k")
class Bdd100k(Files):
    """The 100K images of BDD100K (Yu et al. 2020, bdd-data.berkeley.edu), without annotations.

    Args:
        root: the folder that bdd100k_images_100k.zip was unpacked in.
        splits: which of them; training and test make 90 000, and leave validation for evaluation.
    """

    def __init__(self, root: str | None = None, splits: tuple[Split, ...] = ("train", "test")) -> None:
        wanted = sorted(set(splits))
        if not wanted:
            raise UserError(f"data.splits is empty: give some of {', '.join(_PUBLISHED)}")
        folder, parts = find_parts(
            existing_folder(root), ("bdd100k/images/100k", "images/100k", "100k", ""),
            lambda place: wanted if all((place / split).is_dir() for split in wanted) else [],
            "bdd100k/images/100k/ with " + " and ".join(f"{split}/*.jpg" for split in wanted))
        paths, remarks = list_images(folder, parts)
        require_images(paths, folder)
        super().__init__("bdd100k", folder, paths, remarks=[*remarks, *other_counts(paths, _PUBLISHED, "BDD100K")])
