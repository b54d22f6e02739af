"""NYUv2 as MTAN's program has it."""

from __future__ import annotations

from harness.about import About
from transfer.data._folder import Field, Lacking
from transfer.data._numbered import Classes, NumberedData, class_fields, read_directions, read_positive
from transfer.data.base import DATASETS, Label

CLASSES = ("bed", "books", "ceiling", "chair", "floor", "furniture", "objects", "picture", "sofa", "table", "tv",
           "wall", "window")


@DATASETS.register("nyuv2_npy")
class Nyuv2Npy(NumberedData):
    """NYUv2 with 13 classes, depth and normals, 288×384, as npy files (Liu 2018, section 2.3.1).

    795 images to train on; the folder ``val``, 654, is the split ``test``, since results are reported on it.

    Args:
        root: folder with ``train`` and ``val``.
        binary: each class is a task of its own, so that there are 15 (Pascal 2021, section 3.4.1).
        val_count: training images that become the split ``val``; 0: there is none.
        seed: of that draw.
        size: side, or height and width, that images and labels are brought to when they are read; their own when none.
        lacking: refuse a folder where label files are missing, or accept samples without that label.
    """

    holds = "semseg (or binary tasks), depth, normals"
    about = About(
        "NYUv2, preprocessed for MTAN", "https://github.com/lorenmt/mtan",
        "images and depth for research (Silberman et al., 2012)", """\
ROOT/
  train|val/image/NUMBER.npy     288×384×3, 0 to 1
  train|val/label/NUMBER.npy     288×384, 0 to 12, −1 none
  train|val/depth/NUMBER.npy     288×384×1, metres
  train|val/normal/NUMBER.npy    288×384×3""",
        {"train": 795, "val": 654})

    def __init__(self, root: str | None = None, binary: bool = False, val_count: int = 0, seed: int = 0,
                 size: int | list[int] | None = None, lacking: Lacking = "refuse") -> None:
        super().__init__("nyuv2_npy", root, lacking, size, val_count, seed)
        self.binary = binary
        self.fields = {
            **class_fields(CLASSES, Classes(tuple(range(len(CLASSES)))), ("{folder}/label/{base}.npy",), binary),
            "depth": Field(Label("depth"), read_positive, ("{folder}/depth/{base}.npy",)),
            "normals": Field(Label("normals"), read_directions, ("{folder}/normal/{base}.npy",)),
        }
        self._check()

    def options(self) -> tuple[bool, ...]:
        return (self.binary,)
