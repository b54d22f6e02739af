"""CIFAR-100 with classes at four levels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from harness.about import About
from harness.errors import UserError
from transfer.data import _cifar100
from transfer.data._arrays import ArraySplit, held_out
from transfer.data._folder import existing_root
from transfer.data.base import DATASETS, DataSet, Label, Split

LEVELS = ("class3", "class10", "class20", "class100")


@DATASETS.register("cifar100_hierarchy")
class Cifar100Hierarchy(DataSet):
    """CIFAR-100 (Krizhevsky, 2009) with 3, 10, 20 and 100 classes: tasks ``class3`` to ``class100``.

    The 20 classes are the official ones, those above are of Liu 2018, table 3.3. The official files for Python are read
    without running anything in them; those of the binary version do as well.

    Args:
        root: folder with ``cifar-100-python`` or ``cifar-100-binary``, or one of them.
        val_count: training images that become the split ``val``; 0: there is none.
        seed: of that draw.
    """

    holds = "class3, class10, class20, class100"
    about = About(
        "CIFAR-100", "https://www.cs.toronto.edu/~kriz/cifar.html", "none stated; cite Krizhevsky (2009)", """\
ROOT/
  cifar-100-python/train, test, meta
or
  cifar-100-binary/train.bin, test.bin, fine_label_names.txt""",
        {"train": 50000, "test": 10000})

    def __init__(self, root: str | None = None, val_count: int = 0, seed: int = 0) -> None:
        if val_count < 0:
            raise UserError(f"cifar100_hierarchy: val_count is {val_count}: it must not be negative")
        self.folder, self.binary = _cifar100.find(existing_root("cifar100_hierarchy", root))
        self.names = _cifar100.fine_names(self.folder, self.binary)
        self.val_count, self.seed = val_count, seed
        self.splits = ("train", "val", "test") if val_count else ("train", "test")
        self._parts = {split: _cifar100.read(self.folder, self.binary, split) for split in ("train", "test")}
        self._up = _levels(_cifar100.coarse_of(self._parts["train"], str(self.folder)))

    @property
    def labels(self) -> Mapping[str, Label]:
        names = (tuple(_cifar100.THREE), tuple(_cifar100.TEN), _cifar100.COARSE, self.names)
        labels = {}
        for place, (level, classes) in enumerate(zip(LEVELS, names, strict=True)):
            above = {LEVELS[coarser]: tuple(self._up[place, coarser].tolist()) for coarser in range(place)}
            labels[level] = Label("classification", classes, above)
        return labels

    def load(self, split: str) -> Split:
        part = self._parts["test" if split == "test" else "train"]
        chosen = slice(None)
        if self.val_count and split != "test":
            held = held_out("cifar100_hierarchy", len(part.images), self.val_count, self.seed)
            chosen = held if split == "val" else ~held
        fine, coarse = part.fine[chosen], part.coarse[chosen]
        labels = {"class100": fine, "class20": coarse, "class10": self._up[2, 1][coarse],
                  "class3": self._up[2, 0][coarse]}
        return ArraySplit(split, part.images[chosen], {task: labels[task] for task in self.tasks})

    def remarks(self) -> list[str]:
        counts = {split: len(part.images) for split, part in self._parts.items()}
        return [f"split {split} was published with {self.about.counts[split]} samples, and {count} are there"
                for split, count in counts.items() if count != self.about.counts[split]]

    def fingerprint(self) -> str:
        whole = hashlib.blake2b(digest_size=6)
        for part in self._parts.values():
            for array in part:
                whole.update(array.tobytes())
        return f"cifar100_hierarchy-{whole.hexdigest()}-{self.val_count}-{self.seed}"


def _levels(coarse: tuple[int, ...]) -> dict[tuple[int, int], np.ndarray]:
    """Class index at a coarser level for each class of a finer one, by the two levels' places in :data:`LEVELS`."""
    ten, three = list(_cifar100.TEN), list(_cifar100.THREE)
    ten_of_20 = np.array([next(i for i, name in enumerate(ten) if group in _cifar100.TEN[name])
                          for group in _cifar100.COARSE])
    three_of_10 = np.array([next(i for i, name in enumerate(three) if group in _cifar100.THREE[name]) for group in ten])
    of_100 = np.array(coarse)
    up = {(1, 0): three_of_10, (2, 1): ten_of_20, (2, 0): three_of_10[ten_of_20], (3, 2): of_100}
    for place in (0, 1):
        up[3, place] = np.where(of_100 >= 0, up[2, place][of_100], -1)
    return up
