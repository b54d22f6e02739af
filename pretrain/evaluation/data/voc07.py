"""PASCAL VOC 2007, classification."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.about import About
from harness.errors import UserError
from pretrain.evaluation.data._published import FileSet, damaged, parse
from pretrain.evaluation.data._voc import CLASSES, candidates
from pretrain.evaluation.labelled import LABELLED

_VALUES = {"1": 1, "-1": 0, "0": -1}
"""The lists' present, absent and difficult, as :meth:`LabelledImages.attributes` has them."""


@LABELLED.register("voc07")
class Voc07(FileSet):
    """VOC2007 (Everingham et al., 2010): which of 20 kinds of objects an image shows.

    Reported as mean average precision at 11 recalls (the challenge's own measure of 2007; Kornblith et al., 2019,
    table 1), learnt from ``trainval``. Images whose objects of a kind are all marked difficult are known as such;
    what they count as is an option of the protocol.

    Args:
        root: the folder with ``VOCdevkit``, ``VOCdevkit`` itself, or ``VOC2007``.
    """

    holds = "attributes"
    about = About(
        "PASCAL VOC 2007", "http://host.robots.ox.ac.uk/pascal/VOC/voc2007/", "images under Flickr's terms", """\
ROOT/VOCdevkit/VOC2007/ (or VOC2007 in ROOT, or ROOT itself)
  JPEGImages/NAME.jpg
  ImageSets/Main/KIND_trainval.txt, KIND_test.txt     NAME and 1 (shown), 0 (difficult) or -1 a line: 5011 and 4952""",
        {"trainval": 5011, "test": 4952}, "trainval and test are two archives, unpacked into the same folder")
    kind = "attributes"
    splits = ("trainval", "test")
    learn = "trainval"
    class_names = CLASSES

    def __init__(self, root: str | None = None) -> None:
        super().__init__(root)
        sets = self.find(*candidates(2007)) / "Main"
        images = (sets.parent.parent.relative_to(self.root) / "JPEGImages").as_posix()
        for split in self.splits:
            files = {kind: sets / f"{kind}_{split}.txt" for kind in CLASSES}
            missing = [path.name for path in files.values() if not path.is_file()]
            if missing:
                raise UserError(f"voc07: {sets} lacks {len(missing)} of the {len(files)} lists of split {split}, the "
                                f"first being {missing[0]}: {self.hint}")
            columns = [self._column(path) for path in files.values()]
            first, others = columns[0], columns[1:]
            for path, (names, _, lines) in zip(list(files.values())[1:], others, strict=True):
                _same(names, first[0], path, lines, files[CLASSES[0]])
            self.put(split, files[CLASSES[0]], [f"{images}/{name}.jpg" for name in first[0]], images, first[2],
                     attributes=np.stack([values for _, values, _ in columns], axis=1))

    def _column(self, path: Path) -> tuple[list[str], np.ndarray, list[int]]:
        """Names, values and numbers of lines of one list."""
        lines = self.read_lines(path)
        rows = parse(path, lines, _convert, "NAME and 1, 0 or -1")
        return [name for name, _ in rows], np.array([value for _, value in rows], np.int8), [at for at, _ in lines]


def _convert(line: str) -> tuple[str, int]:
    name, value = line.split()
    return name, _VALUES[value]


def _same(names: list[str], expected: list[str], path: Path, lines: list[int], other: Path) -> None:
    """All lists of a split have the same images in the same order.

    Raises:
        UserError: they do not.
    """
    for line, name, wanted in zip(lines, names, expected, strict=False):
        if name != wanted:
            raise damaged(path, line, name, f"{wanted}, as in {other.name}")
    if len(names) != len(expected):
        raise UserError(f"{path} has {len(names)} images, and {other.name} {len(expected)}: get the lists again")
