"""Taskonomy: indoor scenes with labels that programs and other networks made."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from harness.about import About
from harness.errors import UserError
from transfer.data._files import plane, read_indices, read_numbers
from transfer.data._folder import Field, FolderData, Lacking
from transfer.data._values import class_map, index_table, positive, share
from transfer.data.base import DATASETS, Label

CLASSES = ("background", "bottle", "chair", "couch", "potted plant", "bed", "dining table", "toilet", "tv", "microwave",
           "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase")
_TABLE = index_table({index + 1: index for index in range(len(CLASSES))}, (0, 255))
_UNKNOWN_DEPTH = 65535
_LISTS = ("train_val_test_tiny.csv", "splits_taskonomy/train_val_test_tiny.csv", "splits/train_val_test_tiny.csv")


@DATASETS.register("taskonomy")
class Taskonomy(FolderData):
    """Taskonomy (Zamir et al., 2018), its tiny split: five tasks (Vandenhende 2022, sections 2.2 and 4.4.2).

    Scene categories are distributions over places, trained with the Kullback-Leibler divergence; 2D edges and 2D
    keypoints are heat maps, trained with L1. Images are 512×512.

    Args:
        root: folder with a folder for each kind of label and the list of the tiny split.
        heat_top: the 16-bit number of edges and keypoints that stands for 1; larger ones are 1.
        size: side, or height and width, that images and labels are brought to when they are read; their own when none.
        lacking: refuse a folder where label files are missing, or accept samples without that label.
    """

    holds = "scene, semseg, edge, depth, keypoints"
    about = About(
        "Taskonomy, tiny split", "https://github.com/StanfordVL/taskonomy/tree/master/data",
        "its own licence: non-commercial research", """\
ROOT/
  train_val_test_tiny.csv                  columns id, train, val, test: a building and 0 or 1 (or in splits_taskonomy/)
  rgb/BUILDING/point_0_view_0_domain_rgb.png
  segment_semantic/BUILDING/…_domain_segmentsemantic.png    0 uncertain, 1 to 17 the classes
  depth_zbuffer/BUILDING/…_domain_depth_zbuffer.png         16 bits, 1/512 m, 65535 unknown
  edge_texture/BUILDING/…_domain_edge_texture.png           16 bits
  keypoints2d/BUILDING/…_domain_keypoints2d.png             16 bits
  class_scene/BUILDING/…_domain_class_scene.npy             probabilities of places
  (also KIND/taskonomy/BUILDING/, as the omnidata tools unpack)""",
        note="275 000, 52 000 and 54 000 images of the tiny split's buildings")
    published = {"train": "train", "val": "val", "test": "test"}

    def __init__(self, root: str | None = None, heat_top: int = 11041, size: int | list[int] | None = None,
                 lacking: Lacking = "refuse") -> None:
        super().__init__("taskonomy", root, lacking, size)
        if heat_top < 1:
            raise UserError(f"taskonomy: heat_top is {heat_top}: it must be positive")
        self.heat_top = heat_top
        self._rgb = self.listing.folder_of("rgb", "rgb/taskonomy")
        if self.listing.names("rgb/taskonomy"):
            self._rgb = "rgb/taskonomy"
        self.image = self._rgb + "/{}_domain_rgb.png"
        self._buildings = self._read_buildings()
        heat = Heat(heat_top)
        self.fields = {
            "scene": Field(Label("scene_distribution"), read_distribution,
                           (*_paths("class_scene", "class_scene.npy"), *_paths("class_scene", "class_places.npy"))),
            "semseg": Field(Label("semseg", CLASSES), _semseg,
                            (*_paths("segment_semantic", "segmentsemantic.png"),
                             *_paths("segment_semantic", "segment_semantic.png"))),
            "edge": Field(Label("heat_map"), heat, _paths("edge_texture", "edge_texture.png")),
            "depth": Field(Label("depth"), read_depth, _paths("depth_zbuffer", "depth_zbuffer.png")),
            "keypoints": Field(Label("keypoints"), heat, _paths("keypoints2d", "keypoints2d.png")),
        }
        self._check()
        scene = self.fields["scene"]
        self.fields["scene"] = replace(scene, label=Label(scene.label.task, self._places()))

    def names_of(self, split: str) -> Sequence[str]:
        end, names = "_domain_rgb.png", []
        for building in self._buildings[split]:
            found = [f"{building}/{name.removesuffix(end)}"
                     for name in sorted(self.listing.names(f"{self._rgb}/{building}")) if name.endswith(end)]
            if not found:
                raise UserError(f"taskonomy: building {building} of split {split} has no images in "
                                f"{self.root / self._rgb / building}: {self.hint}")
            names += found
        return names

    def options(self) -> tuple[int, ...]:
        return (self.heat_top,)

    def _read_buildings(self) -> dict[str, list[str]]:
        path = next((self.root / name for name in _LISTS if (self.root / name).is_file()), self.root / _LISTS[0])
        try:
            rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"))))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"taskonomy: the list {path} cannot be read ({error}): {self.hint}") from error
        columns = ("id", "train", "val", "test")
        if not rows or any(name not in rows[0] for name in columns):
            raise UserError(f"taskonomy: {path} needs the columns {', '.join(columns)}: {self.hint}")
        return {split: [row["id"] for row in rows if (row[split] or "").strip() == "1"] for split in columns[1:]}

    def _places(self) -> tuple[str, ...]:
        """As many as the first distribution has; the files have no names."""
        field = self.fields["scene"]
        first = next((path for name in self._names["train"] if (path := self._path(field, name))), None)
        count = len(read_distribution(self.root / first)) if first else 365
        return tuple(f"place {number}" for number in range(count))


def _paths(kind: str, end: str) -> tuple[str, ...]:
    return f"{kind}/{{}}_domain_{end}", f"{kind}/taskonomy/{{}}_domain_{end}"


def _semseg(path: Path) -> np.ndarray:
    return class_map(read_indices(path), _TABLE, path)


def read_depth(path: Path) -> np.ndarray:
    """Metres, 0 where unknown."""
    stored = plane(read_indices(path), path)
    return positive(np.where(stored == _UNKNOWN_DEPTH, 0, stored)) * np.float32(1 / 512)


@dataclass(frozen=True)
class Heat:
    """Reader of a 16-bit heat map.

    Args:
        top: the number that stands for 1.
    """

    top: int

    def __call__(self, path: Path) -> np.ndarray:
        return share(read_indices(path), self.top)


def read_distribution(path: Path) -> np.ndarray:
    """Probabilities that add up to 1, float32 ``[places]``.

    Raises:
        UserError: it has no dimension, or negative or no probabilities.
    """
    values = read_numbers(path).astype(np.float32)
    if values.ndim != 1 or len(values) < 2 or not (values.min() >= 0 and 0 < values.sum() < np.inf):
        raise UserError(f"{path} of shape {values.shape} is no list of probabilities: get the file again")
    return values / values.sum()
