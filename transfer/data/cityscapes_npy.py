"""Cityscapes as MTAN's program has it."""

from __future__ import annotations

from typing import Literal

from harness.about import About
from harness.errors import UserError
from transfer.data._cityscapes_lists import CLASSES, coarser
from transfer.data._folder import Field, Lacking
from transfer.data._numbered import Classes, NumberedData, class_fields, read_positive
from transfer.data.base import DATASETS, Label


@DATASETS.register("cityscapes_npy")
class CityscapesNpy(NumberedData):
    """Cityscapes with 2, 7 or 19 classes and inverse depth, 128×256, as npy files (Liu 2018, sections 2.3.1 and 3.1.1).

    2975 images to train on; the folder ``val``, 500, is the split ``test``, since results are reported on it. Labels of
    fewer classes are taken from ``label_19`` or ``label_7`` where they have no folder of their own; a folder ``label``
    without number has 7 classes.

    Args:
        root: folder with ``train`` and ``val``.
        classes: 19, 7 or 2.
        binary: each class is a task of its own, so that there are 8 with 7 classes (Pascal 2021, section 3.4.1).
        val_count: training images that become the split ``val``; 0: there is none.
        seed: of that draw.
        size: side, or height and width, that images and labels are brought to when they are read; their own when none.
        lacking: refuse a folder where label files are missing, or accept samples without that label.
    """

    holds = "semseg (or binary tasks), inverse_depth"
    about = About(
        "Cityscapes, preprocessed for MTAN", "https://github.com/lorenmt/mtan",
        "as Cityscapes: for non-commercial research", """\
ROOT/
  train|val/image/NUMBER.npy                        128×256×3, 0 to 1
  train|val/label_19|label_7|label_2/NUMBER.npy     128×256, −1 none; one of them is enough
  train|val/depth/NUMBER.npy                        128×256×1, inverse depth, 0 unknown""",
        {"train": 2975, "val": 500})

    def __init__(self, root: str | None = None, classes: Literal[19, 7, 2] = 7, binary: bool = False,
                 val_count: int = 0, seed: int = 0, size: int | list[int] | None = None,
                 lacking: Lacking = "refuse") -> None:
        super().__init__("cityscapes_npy", root, lacking, size, val_count, seed)
        if classes not in CLASSES:
            raise UserError(f"cityscapes_npy: classes is {classes}: choose 19, 7 or 2")
        self.classes, self.binary = classes, binary
        stored, folder = self._stored()
        self.fields = {
            **class_fields(CLASSES[classes], Classes(coarser(stored, classes)), (f"{{folder}}/{folder}/{{base}}.npy",),
                           binary),
            "inverse_depth": Field(Label("inverse_depth"), read_positive, ("{folder}/depth/{base}.npy",)),
        }
        self._check()

    def _stored(self) -> tuple[int, str]:
        """How many classes the labels have that are there, and their folder."""
        choices = [(count, f"label_{count}") for count in sorted(CLASSES) if count >= self.classes]
        choices += [(7, "label")] if self.classes <= 7 else []
        return next((choice for choice in choices if self.listing.names(f"train/{choice[1]}")), choices[0])

    def options(self) -> tuple[object, ...]:
        return self.classes, self.binary, self._stored()[1]
