"""Layouts of images with a class each."""

from __future__ import annotations

from pathlib import Path

from harness.errors import UserError
from scenes.classes import SCENE_TYPES
from scenes.export.base import Layout, View


class ClassifiedLayout(Layout):
    """The class of an image is the type of its room.

    Attributes:
        rows: of each split, the image as its list names it and its class, in the order in which they were written.
        classes: as the layout calls the types of rooms.
    """

    splits = ("train", "test")
    counts = {"train": 48, "val": 24, "test": 24}
    size = (64, 64)
    quantisation = "losses of JPEG in pictures, nothing of labels"
    classes: tuple[str, ...] = SCENE_TYPES

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.rows: dict[str, list[tuple[str, int]]] = {split: [] for split in self.splits}

    def keep(self, split: str, name: str, view: View) -> None:
        """What :attr:`rows` has of one image."""
        self.rows[split].append((name, int(view["scene"])))

    def require_all_classes(self) -> None:
        """For layouts whose classes are those of their images.

        Raises:
            UserError: a split has no image of a class.
        """
        for split, rows in self.rows.items():
            lacking = set(range(len(self.classes))) - {label for _, label in rows}
            if lacking:
                raise UserError(f"{len(rows)} scenes of split {split} have no {SCENE_TYPES[min(lacking)]}, and every "
                                f"class needs an image: write more of them with --{split} N")

    def class_of(self, view: View) -> str:
        """The name of an image's class."""
        return self.classes[int(view["scene"])]
