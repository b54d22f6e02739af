"""CelebA: attributes of faces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from harness.about import About
from harness.errors import UserError
from transfer.data._folder import FolderData, Known, Table, read_list, some
from transfer.data.base import DATASETS, Label

GROUPS = {
    "global": ("Attractive", "Blurry", "Chubby", "Double_Chin", "Heavy_Makeup", "Male", "Oval_Face", "Pale_Skin",
               "Young"),
    "eyes": ("Bags_Under_Eyes", "Eyeglasses", "Narrow_Eyes", "Arched_Eyebrows", "Bushy_Eyebrows"),
    "hair": ("Bald", "Bangs", "Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair", "Receding_Hairline",
             "Straight_Hair", "Wavy_Hair"),
    "mouth": ("Big_Lips", "Mouth_Slightly_Open", "Smiling", "Wearing_Lipstick"),
    "nose": ("Big_Nose", "Pointy_Nose"),
    "beard": ("5_o_Clock_Shadow", "Goatee", "Mustache", "No_Beard", "Sideburns"),
    "cheeks": ("High_Cheekbones", "Rosy_Cheeks"),
    "wearings": ("Wearing_Earrings", "Wearing_Hat", "Wearing_Necklace", "Wearing_Necktie"),
}
"""Eight tasks of forty attributes (Pascal 2021, table 3.1)."""

_PARTITION = {"0": "train", "1": "val", "2": "test"}


@DATASETS.register("celeba")
class CelebA(FolderData):
    """CelebA (Liu et al., 2015): 40 attributes of faces, each a task, or in eight groups.

    162 770 images to train on, 19 867 to validate, 19 962 to test, as in the official list. The whole aligned image of
    178×218 pixels is brought to 64×64 (Sener and Koltun 2018, section 4.2; Pascal 2021, section 3.4.3).

    Args:
        root: folder with ``img_align_celeba``, ``list_attr_celeba.txt`` and ``list_eval_partition.txt``; also where
            they lie in ``Img``, ``Anno`` and ``Eval``.
        grouping: ``attributes``: 40 tasks of one attribute; ``groups``: the eight groups of Pascal 2021, table 3.1;
            ``one``: a single task of all 40.
        size: side, or height and width, that images are brought to; their own when none.
    """

    holds = "40 attributes, or 8 groups, or one task"
    about = About(
        "CelebA", "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html", "for non-commercial research", """\
ROOT/
  img_align_celeba/000001.jpg … 202599.jpg     (or in Img/)
  list_attr_celeba.txt                         (or in Anno/) count, names, then NAME and 40 times 1 or -1
  list_eval_partition.txt                      (or in Eval/) NAME and 0 train, 1 val, 2 test""",
        {"train": 162770, "val": 19867, "test": 19962})
    published = {"train": "train", "val": "val", "test": "test"}

    def __init__(self, root: str | None = None, grouping: Literal["attributes", "groups", "one"] = "attributes",
                 size: int | list[int] | None = 64) -> None:
        super().__init__("celeba", root, size=size)
        if grouping not in ("attributes", "groups", "one"):
            raise UserError(f"celeba: grouping is '{grouping}': choose attributes, groups or one")
        self.grouping = grouping
        folder = self.listing.folder_of("img_align_celeba", "Img/img_align_celeba",
                                        "img_align_celeba/img_align_celeba")
        self.image = folder + "/{}"
        self._partition = self._read_partition()
        names, rows, table = self._read_attributes()
        tasks = {"attributes": {name.lower(): (name,) for name in names}, "groups": GROUPS,
                 "one": {"attributes": names}}[grouping]
        place = {name: index for index, name in enumerate(names)}
        self.fields = {task: Known(Label("attributes", tuple(members)),
                                   Table(rows, table, [place[member] for member in members]))
                       for task, members in tasks.items()}
        self._check()

    def names_of(self, split: str) -> Sequence[str]:
        return [name for name, part in self._partition if part == split]

    def options(self) -> tuple[str, ...]:
        return (self.grouping,)

    def _list(self, folder: str, name: str) -> tuple[Path, list[str]]:
        place = self.root / folder / name
        path = place if place.is_file() else self.root / name
        return path, read_list(self.name, path, self.hint)

    def _read_partition(self) -> list[tuple[str, str]]:
        path, lines = self._list("Eval", "list_eval_partition.txt")
        rows = [line.split() for line in lines]
        wrong = next((row for row in rows if len(row) != 2 or row[1] not in _PARTITION), None)
        if wrong is not None:
            raise UserError(f"celeba: {path} has a line '{' '.join(wrong)[:60]}': each is a name and 0, 1 or 2")
        return [(name, _PARTITION[part]) for name, part in rows]

    def _read_attributes(self) -> tuple[tuple[str, ...], dict[str, int], np.ndarray]:
        path, lines = self._list("Anno", "list_attr_celeba.txt")
        known = {name for members in GROUPS.values() for name in members}
        header = tuple(lines[1].split()) if len(lines) > 2 else ()
        if set(header) != known:
            raise UserError(f"celeba: {path} has no second line with the 40 attributes: {self.hint}")
        rows = [line.split(None, 1) for line in lines[2:]]
        # one pass over all numbers: two hundred thousand lines one by one take ten times as long
        try:
            numbers = np.fromstring(" ".join(row[1] for row in rows), np.int8, sep=" ")
            values = numbers.reshape(len(rows), len(header))
        except (ValueError, IndexError):
            values = np.zeros((1, 1))
        if not (np.abs(values) == 1).all():
            raise UserError(f"celeba: {path} does not have 40 times 1 or -1 in each line: get the file again")
        numbered = {row[0]: number for number, row in enumerate(rows)}
        if len(numbered) < len(rows):
            twice = next(row[0] for number, row in enumerate(rows) if numbered[row[0]] != number)
            raise UserError(f"celeba: {path} has two lines of {twice}: get the file again")
        absent = [name for name, _ in self._partition if name not in numbered]
        if absent:
            raise UserError(f"celeba: {path} has no line of {len(absent)} images of the partition: {some(absent)}: get "
                            "both lists again")
        return header, numbered, (values > 0).view(np.uint8)

