"""REFUGE: photographs of the retina."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from harness.about import About
from harness.errors import UserError
from transfer.data._files import plane, read_indices
from transfer.data._folder import Field, FolderData, FolderSplit, Known, Lacking, draw_point, resized, some
from transfer.data._spreadsheet import read_sheet
from transfer.data._values import class_map, index_table
from transfer.data.base import DATASETS, Label, Sample, Split
from transfer.transforms import Geometry

_DISC, _CUP = index_table({0: 1, 128: 1, 255: 0}, ()), index_table({0: 1, 128: 0, 255: 0}, ())

#: Where the parts of the official archives lie: images, annotations, and what images are called there.
_IMAGES = {
    "train": ("Training400", "REFUGE-Training400/Training400", "REFUGE-Training400", "Train/REFUGE1-train/Training400"),
    "val": ("REFUGE-Validation400", "REFUGE-Validation400/REFUGE-Validation400",
            "Train/REFUGE1-val/REFUGE-Validation400"),
    "test": ("Test400", "REFUGE-Test400/Test400", "REFUGE-Test400", "Train/REFUGE1-test/Test400"),
}
_LABELS = {
    "train": ("Annotation-Training400", "Annotation-Training400/Annotation-Training400", "Train/REFUGE1-train"),
    "val": ("REFUGE-Validation400-GT", "REFUGE-Validation400-GT/REFUGE-Validation400-GT", "Train/REFUGE1-val"),
    "test": ("REFUGE-Test-GT", "REFUGE-Test-GT/REFUGE-Test-GT", "Train/REFUGE1-test"),
}
_TABLE_OF = {"train": "Fovea_location.xlsx", "val": "Fovea_locations.xlsx",
             "test": "Glaucoma_label_and_Fovea_location.xlsx"}
_TABLES = tuple(_TABLE_OF.values())
_KINDS = ("Glaucoma", "Non-Glaucoma")


@DATASETS.register("refuge")
class Refuge(FolderData):
    """REFUGE (Orlando et al., 2020): glaucoma, optic disc, optic cup and fovea (Pascal 2021, section 5.1.2).

    The disc holds the cup. Glaucoma is the folder of a training image, and a column of the tables of the others.

    Args:
        root: folder with the unpacked official archives.
        division: ``400/400/400``: the official splits; ``800/400``: official training and validation images are
            ``train`` (Wu et al., 2023, section 3.1).
        crop: side in pixels of the square about the disc's centre that images are cut to, as Wu et al. do with 512;
            whole images when none. The square is placed by the label, in testing too.
        size: side, or height and width, that images and labels are brought to when they are read; their own when none.
        lacking: refuse a folder where label files are missing, or accept samples without that label.
    """

    holds = "glaucoma, disc, cup, fovea"
    about = About(
        "REFUGE", "https://refuge.grand-challenge.org", "CC BY-NC-ND 4.0, after registration", """\
ROOT/
  Training400/Glaucoma|Non-Glaucoma/g0001.jpg
  Annotation-Training400/Disc_Cup_Masks/Glaucoma|Non-Glaucoma/g0001.bmp    0 cup, 128 disc, 255 neither
  Annotation-Training400/Fovea_location.xlsx
  REFUGE-Validation400/V0001.jpg
  REFUGE-Validation400-GT/Disc_Cup_Masks/V0001.bmp, Fovea_locations.xlsx
  Test400/T0001.jpg
  REFUGE-Test-GT/Disc_Cup_Masks/T0001.bmp, Glaucoma_label_and_Fovea_location.xlsx""",
        {"train": 400, "val": 400, "test": 400})
    image = "{}"
    published = {"train": "train", "val": "val", "test": "test"}

    def __init__(self, root: str | None = None, division: Literal["400/400/400", "800/400"] = "400/400/400",
                 crop: int | None = None, size: int | list[int] | None = None, lacking: Lacking = "refuse") -> None:
        super().__init__("refuge", root, lacking, size)
        if division not in ("400/400/400", "800/400"):
            raise UserError(f"refuge: division is '{division}': choose 400/400/400 or 800/400")
        if crop is not None and crop < 16:
            raise UserError(f"refuge: crop is {crop}: it must be at least 16 pixels")
        self.division, self.crop = division, crop
        self._images = {split: self.listing.folder_of(*places) for split, places in _IMAGES.items()}
        self._labels = {split: self._label_folder(places) for split, places in _LABELS.items()}
        masks = tuple(f"{folder}/Disc_Cup_Masks/{kind}{{stem}}.bmp" for folder in self._labels.values()
                      for kind in ("", *(f"{kind}/" for kind in _KINDS)))
        self._without_table: dict[str, str] = {}
        self._without_row: dict[str, list[str]] = {}
        fovea, glaucoma = self._tables()
        self.fields = {
            "glaucoma": Known(Label("classification", ("healthy", "glaucoma")), glaucoma),
            "disc": Field(Label("binary_segmentation"), read_disc, masks),
            "cup": Field(Label("binary_segmentation"), read_cup, masks),
            "fovea": Known(Label("localization"), fovea, draw_point),
        }
        self._check()
        if division == "800/400":
            self._names["train"] = self._names["train"] + self._names.pop("val")
            self.splits = ("train", "test")

    def _label_folder(self, places: Sequence[str]) -> str:
        return next((place for place in places if self.listing.names(f"{place}/Disc_Cup_Masks")), places[0])

    def names_of(self, split: str) -> Sequence[str]:
        folder = self._images[split]
        places = [f"{folder}/{kind}" for kind in _KINDS] if split == "train" else [folder]
        return [f"{place}/{name}" for place in places for name in sorted(self.listing.names(place))
                if name.lower().endswith(".jpg")]

    def load(self, split: str) -> Split:
        for place in self._without_table.items() if self.lacking == "refuse" else ():
            for task in self.tasks:
                if place[0] in self._parts_of(split) and task in _told_by_table(place[0]):
                    raise UserError(f"refuge: {_no_table(*place)} in {self.root}: it has the labels of task '{task}'. "
                                    "Get it again, or train on what is there with --data.lacking accept")
        if self.crop is None:
            return super().load(split)
        size, self.size = self.size, None
        samples = super().load(split)
        self.size = size
        masks = [self._path(self.fields["disc"], name) for name in self._names[split]]
        unknown = [name for name, mask in zip(self._names[split], masks, strict=True) if mask is None]
        if unknown:
            raise UserError(f"refuge: {len(unknown)} images have no mask to place the crop by: {some(unknown)}. Get "
                            "them again, or leave crop out")
        return _Cropped(samples, masks, self.crop, size)

    def remarks(self) -> list[str]:
        rows = [f"{len(names)} rows of the table of split {split} are missing, with the labels of "
                f"{' and '.join(_told_by_table(split))}: {some(names)}"
                for split, names in self._without_row.items() if names]
        return [*super().remarks(), *(_no_table(*place) for place in self._without_table.items()), *rows]

    def _parts_of(self, split: str) -> tuple[str, ...]:
        """The official splits that one is made of."""
        return ("train", "val") if split == "train" and self.division == "800/400" else (split,)

    def options(self) -> tuple[object, ...]:
        return self.division, self.crop

    def _tables(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Fovea and glaucoma of every image by its path."""
        fovea: dict[str, np.ndarray] = {}
        glaucoma: dict[str, np.ndarray] = {}
        for split, folder in self._labels.items():
            names = {Path(name).stem.lower(): name for name in self.names_of(split)}
            if split == "train":
                glaucoma.update({name: np.int64(f"/{_KINDS[0]}/" in name) for name in names.values()})
            file = next((file for file in _TABLES if file in self.listing.names(folder)), None)
            if file is None:
                self._without_table[split] = folder
                continue
            path, told = self.root / folder / file, set()
            for row in _rows(path):
                name = names.get(Path(row["name"]).stem.lower())
                if name is None:
                    continue
                told.add(name)
                point = np.array([_number(row[key], path) for key in ("x", "y")], np.float32)
                if (point > 0).all():  # where it cannot be seen, the table has 0
                    fovea[name] = point
                if "label" in row and split != "train":
                    glaucoma[name] = np.int64(_number(row["label"], path) > 0)
            self._without_row[split] = [name for name in names.values() if name not in told]
        return fovea, glaucoma


def _told_by_table(split: str) -> tuple[str, ...]:
    """Tasks whose labels the table of an official split has; of training images the folder tells of glaucoma."""
    return ("fovea",) if split == "train" else ("fovea", "glaucoma")


def _no_table(split: str, folder: str) -> str:
    return f"the table {folder}/{_TABLE_OF[split]} of split {split} is missing"


def _rows(path: Path) -> list[dict[str, str]]:
    """Cells by what their column is: name, x, y, and label where there is one."""
    rows = read_sheet(path)
    head = [cell.lower().replace(" ", "_") for cell in rows[0]] if rows else []
    places: dict[str, int] = {}
    for place, cell in enumerate(head):
        key = {"imgname": "name", "fovea_x": "x", "fovea_y": "y"}.get(cell) or ("label" if "glaucoma" in cell else None)
        if key:
            places.setdefault(key, place)
    if not {"name", "x", "y"} <= set(places):
        has = ", ".join(rows[0]) if rows else "none"
        raise UserError(f"{path} needs the columns ImgName, Fovea_X and Fovea_Y, and has {has}: get the file again")
    return [{key: row[place] if place < len(row) else "" for key, place in places.items()} for row in rows[1:]
            if any(row)]


def _number(text: str, path: Path) -> float:
    try:
        return float(text or 0)
    except ValueError as error:
        raise UserError(f"{path} has '{text}' where a number belongs: get the file again") from error


def read_disc(path: Path) -> np.ndarray:
    """1 on the optic disc, its cup included."""
    return class_map(plane(read_indices(path), path), _DISC, path)


def read_cup(path: Path) -> np.ndarray:
    """1 on the optic cup."""
    return class_map(plane(read_indices(path), path), _CUP, path)


class _Cropped(Split):
    """Squares about the disc.

    Args:
        whole: the samples.
        masks: path of the mask that places the square of each.
        crop: its side, pixels.
        size: that samples are brought to after that.
    """

    def __init__(self, whole: FolderSplit, masks: Sequence[str], crop: int, size: tuple[int, int] | None) -> None:
        self.whole, self.masks, self.crop, self.size = whole, masks, crop, size

    def __len__(self) -> int:
        return len(self.whole)

    def __getitem__(self, index: int) -> Sample:
        sample, tasks = self.whole[index], self.whole.tasks
        height, width = sample["image"].shape[:2]
        found = np.argwhere(read_disc(self.whole.root / self.masks[index]))
        centre = (found.min(0) + found.max(0) + 1) / 2 if len(found) else np.array([height, width]) / 2
        top, left = np.round(centre - self.crop / 2).tolist()
        geometry = Geometry(height, width, self.crop, self.crop, top=top, left=left)
        cut: Sample = {
            "image": geometry.image(sample["image"], fill=(0, 0, 0)), "id": sample["id"],
            "targets": {task: tasks[task].apply(target, geometry) for task, target in sample["targets"].items()},
        }
        fovea = cut["targets"].get("fovea")
        if fovea is not None and fovea.max() < 0.5:
            del cut["targets"]["fovea"]  # it lies outside
        return cut if self.size is None else resized(cut, tasks, self.size)

    @property
    def sizes(self) -> dict[str, int]:
        """How many samples have a label of each task."""
        return self.whole.sizes
