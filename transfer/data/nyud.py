"""NYUD-v2: indoor scenes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harness.about import About
from transfer.data._files import plane, read_indices, read_numbers
from transfer.data._folder import Field, FolderData, Lacking, read_list
from transfer.data._values import class_map, index_table, positive, unit_vectors, yes_or_no
from transfer.data.base import DATASETS, Label

CLASSES = (
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter",
    "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes", "ceiling", "books",
    "refrigerator", "television", "paper", "towel", "shower curtain", "box", "whiteboard", "person", "night stand",
    "toilet", "sink", "lamp", "bathtub", "bag", "other structure", "other furniture", "other prop",
)
_TABLE = index_table({index + 1: index for index in range(len(CLASSES))}, (0, 255))


@DATASETS.register("nyud")
class Nyud(FolderData):
    """NYUD-v2 (Silberman et al., 2012) with the labels of ASTMT (Maninis et al., 2019; Vandenhende 2022, chapter 5).

    795 images to train on, 654 to test, 480×640. The list ``val.txt`` is the split ``test``, since results are reported
    on it; there is no split to choose by unless one is held out.

    Args:
        root: folder with ``images``, ``segmentation``, ``depth``, ``normals``, ``edge`` and ``gt_sets``.
        val_count: training images that become the split ``val``; 0: there is none.
        seed: of that draw.
        size: side, or height and width, that images and labels are brought to when they are read; their own when none.
        lacking: refuse a folder where label files are missing, or accept samples without that label.
    """

    holds = "semseg, depth, normals, edge"
    about = About(
        "NYUD-v2, multi-task version", "https://github.com/SimonVandenhende/Multi-Task-Learning-PyTorch",
        "images and depth for research (Silberman et al., 2012); labels of ASTMT CC BY-NC 4.0", """\
ROOT/
  gt_sets/train.txt, val.txt    one name a line: 795 and 654
  images/NAME.jpg               480×640
  segmentation/NAME.png         0 none, 1 to 40 the classes
  depth/NAME.npy                metres, 0 unknown
  normals/NAME.npy              480×640×3, (0, 0, 0) unknown
  edge/NAME.npy                 0 or 1""",
        {"train": 795, "val": 654}, "the archive is called NYUD_MT; the one of ASTMT itself has other file types")
    image = "images/{}.jpg"

    def __init__(self, root: str | None = None, val_count: int = 0, seed: int = 0,
                 size: int | list[int] | None = None, lacking: Lacking = "refuse") -> None:
        super().__init__("nyud", root, lacking, size, val_count, seed)
        self.fields = {
            "semseg": Field(Label("semseg", CLASSES), _semseg, ("segmentation/{}.png",)),
            "depth": Field(Label("depth"), read_depth, ("depth/{}.npy",)),
            "normals": Field(Label("normals"), read_normals, ("normals/{}.npy",)),
            "edge": Field(Label("edge"), read_edge, ("edge/{}.npy",)),
        }
        self._check()

    def names_of(self, split: str) -> Sequence[str]:
        return read_list(self.name, self.root / "gt_sets" / f"{split}.txt", self.hint)


def _semseg(path: Path) -> np.ndarray:
    return class_map(read_indices(path), _TABLE, path)


def read_depth(path: Path) -> np.ndarray:
    """Metres, 0 where unknown."""
    return positive(plane(read_numbers(path), path))


def read_normals(path: Path) -> np.ndarray:
    """Unit vectors, 0 where unknown."""
    return unit_vectors(read_numbers(path), path)


def read_edge(path: Path) -> np.ndarray:
    """0 and 1."""
    return yes_or_no(plane(read_numbers(path), path), path)
