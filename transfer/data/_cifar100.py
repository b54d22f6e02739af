"""CIFAR-100 in its two official formats, and the hierarchy above its classes."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from harness.array_pickle import read_pickle
from harness.errors import UserError

COARSE = (
    "aquatic_mammals", "fish", "flowers", "food_containers", "fruit_and_vegetables", "household_electrical_devices",
    "household_furniture", "insects", "large_carnivores", "large_man-made_outdoor_things",
    "large_natural_outdoor_scenes", "large_omnivores_and_herbivores", "medium_mammals", "non-insect_invertebrates",
    "people", "reptiles", "small_mammals", "trees", "vehicles_1", "vehicles_2",
)
"""The official 20 classes in their order."""

TEN = {
    "large animals": ("reptiles", "large_carnivores", "large_omnivores_and_herbivores"),
    "medium animals": ("aquatic_mammals", "medium_mammals"),
    "small animals": ("small_mammals", "fish"),
    "invertebrates": ("insects", "non-insect_invertebrates"),
    "people": ("people",),
    "vegetations": ("flowers", "fruit_and_vegetables", "trees"),
    "household objects": ("food_containers", "household_electrical_devices", "household_furniture"),
    "construction": ("large_man-made_outdoor_things",),
    "natural scenes": ("large_natural_outdoor_scenes",),
    "vehicles": ("vehicles_1", "vehicles_2"),
}
THREE = {
    "animals": ("large animals", "medium animals", "small animals", "invertebrates", "people"),
    "vegetations": ("vegetations",),
    "objects and scenes": ("household objects", "construction", "natural scenes", "vehicles"),
}
"""Liu 2018, table 3.3."""

_ROW = 2 + 3 * 32 * 32
_FINE = 100


class Part(NamedTuple):
    """One split: images uint8 ``[N, 32, 32, 3]``, and labels int64 ``[N]`` of 100 and of 20 classes."""

    images: np.ndarray
    fine: np.ndarray
    coarse: np.ndarray


def find(root: Path) -> tuple[Path, bool]:
    """The folder with the files at or below ``root``, and whether they are the binary version.

    Raises:
        UserError: neither version is whole; the message says what is missing.
    """
    lacks = {}
    for name, files in (("cifar-100-python", ("train", "test", "meta")),
                        ("cifar-100-binary", ("train.bin", "test.bin", "fine_label_names.txt"))):
        for folder in (root, root / name):
            missing = [file for file in files if not (folder / file).is_file()]
            if not missing:
                return folder, name.endswith("binary")
            if len(missing) < len(files):
                lacks[folder] = missing
    if lacks:
        folder, missing = next(iter(lacks.items()))
        raise UserError(f"cifar100_hierarchy: {folder} lacks {', '.join(missing)}: unpack the official archive again")
    raise UserError(f"cifar100_hierarchy: neither {root} nor cifar-100-python or cifar-100-binary in it has the "
                    "official files: python -m transfer.data where cifar100_hierarchy says where to get them")


def fine_names(folder: Path, binary: bool) -> tuple[str, ...]:
    """The names of the 100 classes.

    Raises:
        UserError: there are others.
    """
    path = folder / ("fine_label_names.txt" if binary else "meta")
    names = path.read_text(encoding="utf-8", errors="replace").split() if binary else \
        _mapping(path).get("fine_label_names")
    if not isinstance(names, list) or len(names) != _FINE or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path} does not name 100 classes: get the file again")
    return tuple(names)


def read(folder: Path, binary: bool, split: str) -> Part:
    """``train`` or ``test``.

    Raises:
        UserError: the file is damaged, wants to run code, or has labels out of range.
    """
    path = folder / (f"{split}.bin" if binary else split)
    if binary:
        rows = np.fromfile(path, np.uint8)
        if not len(rows) or len(rows) % _ROW:
            raise UserError(f"{path} has {len(rows)} bytes, which is not a number of images of {_ROW} bytes: get the "
                            "file again")
        rows = rows.reshape(-1, _ROW)
        coarse, fine, data = rows[:, 0], rows[:, 1], rows[:, 2:]
    else:
        content = _mapping(path)
        data, fine, coarse = (content.get(key) for key in ("data", "fine_labels", "coarse_labels"))
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != _ROW - 2 \
                or not _numbers(fine) or not _numbers(coarse) or not len(fine) == len(coarse) == len(data):
            raise UserError(f"{path} is no part of CIFAR-100 (data, fine_labels, coarse_labels): get the file again")
    fine, coarse = np.array(fine, np.int64), np.array(coarse, np.int64)
    if len(fine) and (fine.min() < 0 or fine.max() >= _FINE or coarse.min() < 0 or coarse.max() >= len(COARSE)):
        raise UserError(f"{path} has a label out of range: there are classes 0 to 99, in 20 groups. Get the file again")
    images = np.ascontiguousarray(data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return Part(images, fine, coarse)


def coarse_of(part: Part, path: str) -> tuple[int, ...]:
    """The group of each of the 100 classes, as the labels have it; groups of classes without image are −1.

    Raises:
        UserError: images of one class are in two groups.
    """
    groups = np.full(_FINE, -1)
    groups[part.fine] = part.coarse
    if (groups[part.fine] != part.coarse).any():
        wrong = int(part.fine[groups[part.fine] != part.coarse][0])
        raise UserError(f"{path}: images of class {wrong} are in different groups: get the file again")
    return tuple(int(group) for group in groups)


def _mapping(path: Path) -> dict:
    try:
        content = read_pickle(path)
    except Exception as error:  # damaged pickles raise nearly everything
        raise UserError(f"{path} cannot be read ({' '.join(str(error).split()) or type(error).__name__}): get the file "
                        "again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is no part of CIFAR-100: get the file again")
    return content


def _numbers(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, int) for item in value)
