"""A folder for each class."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np

from harness.errors import UserError
from pretrain.evaluation.data._images import ImageFiles
from pretrain.evaluation.data._published import FileSet
from pretrain.evaluation.labelled import LABELLED
from pretrain.sources._listing import list_images
from pretrain.sources.base import Paths

_NAMED = 3


@LABELLED.register("folder")
class ClassFolders(FileSet):
    """Images in a folder for each class, at any depth below it: ``ROOT/train/CLASS/…`` and ``ROOT/test/CLASS/…``.

    Classes are numbered in the order of their names, and both splits have the same.

    Args:
        root: the folder of the splits.
        train: folder of the images that classifiers learn from.
        test: folder of the images that are measured; ``test`` when none, or ``val`` where that has no class folders.
    """

    holds = "class"

    def __init__(self, root: str | None = None, train: str = "train", test: str | None = None) -> None:
        super().__init__(root)
        test = test or next((name for name in ("test", "val") if _folders(self.root / name)), "test")
        self.splits = self.learn, self.test = train.rstrip("/"), test.rstrip("/")
        for split in self.splits:
            if not (self.root / split).is_dir():
                there = _some(_folders(self.root)) or "nothing"
                raise UserError(f"{self.name}: {self.root} has no folder {split}, but {there}: name the splits' "
                                "folders with --data.train and --data.test")
        if os.path.samefile(self.root / self.learn, self.root / self.test):
            raise UserError(f"{self.name}: {self.learn} and {self.test} in {self.root} are the same folder: results "
                            "would be of training images")
        found = {split: self._read(split) for split in self.splits}
        classes = {split: set(numbers) for split, (_, numbers) in found.items()}
        _same_classes(self.root, classes)
        self.class_names = tuple(sorted(classes[self.learn]))
        number_of = {name: number for number, name in enumerate(self.class_names)}
        for split, (paths, counts) in found.items():
            labels = np.repeat([number_of[name] for name in counts], list(counts.values()))
            self._parts[split] = ImageFiles(self.root, paths, labels)

    def _read(self, split: str) -> tuple[Paths, Counter[str]]:
        """A split's images, and how many lie in each class's folder, in the order of their paths."""
        paths, remarks = list_images(self.root, [split])
        self._remarks += remarks
        start = len(split) + 1
        counts: Counter[str] = Counter()
        for path in paths:
            name, slash, _ = path[start:].partition("/")
            if not slash:
                raise UserError(f"{self.name}: the image {path} in {self.root} lies in no class's folder: expected "
                                f"{split}/CLASS/{name}")
            counts[name] += 1
        empty = [name for name in _folders(self.root / split) if name not in counts]
        if empty or not counts:
            which = f"the class {'folder' if len(empty) == 1 else 'folders'} {_some(empty)} in " if empty else ""
            raise UserError(f"{self.name}: there are no images in {which}{self.root / split}: unpack them, or remove "
                            "what is empty")
        return paths, counts


def _folders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted; none where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())
    except OSError:
        return []


def _same_classes(root: Path, classes: dict[str, set[str]]) -> None:
    """Refuse splits of different classes.

    Raises:
        UserError: they differ; the message names some.
    """
    (learn, known), (test, asked) = classes.items()
    parts = [f"{_some(sorted(only))} {'is' if len(only) == 1 else 'are'} in {split} alone"
             for split, only in ((learn, known - asked), (test, asked - known)) if only]
    if parts:
        raise UserError(f"the class folders of {root / learn} and {root / test} differ: {', and '.join(parts)}: give "
                        "both the same classes")


def _some(names: list[str]) -> str:
    """The first of many, for a message."""
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
