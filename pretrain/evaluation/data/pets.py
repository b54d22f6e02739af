"""The Oxford-IIIT Pet Dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.about import About
from harness.errors import UserError
from pretrain.evaluation.data._published import FileSet, parse
from pretrain.evaluation.labelled import LABELLED


@LABELLED.register("pets")
class Pets(FileSet):
    """Oxford-IIIT Pets (Parkhi et al., 2012): 37 breeds of cats and dogs.

    Reported as accuracy averaged over classes (Kornblith et al., 2019, table 1).

    Args:
        root: the folder with ``images`` and ``annotations``.
    """

    holds = "class"
    about = About(
        "Oxford-IIIT Pet Dataset", "https://www.robots.ox.ac.uk/~vgg/data/pets/", "CC BY-SA 4.0", """\
ROOT/
  images/BREED_NUMBER.jpg
  annotations/trainval.txt, test.txt   BREED_NUMBER CLASS SPECIES BREED-OF-SPECIES a line: 3680 and 3669""",
        {"trainval": 3680, "test": 3669})
    splits = ("trainval", "test")
    learn = "trainval"
    mean_per_class = True

    def __init__(self, root: str | None = None) -> None:
        super().__init__(root)
        names: dict[int, str] = {}
        for split in self.splits:
            source = self.find(f"annotations/{split}.txt")
            lines = [(number, line) for number, line in self.read_lines(source) if not line.startswith("#")]
            rows = parse(source, lines, _convert, "BREED_NUMBER CLASS SPECIES BREED-OF-SPECIES")
            for (number, _), (path, label) in zip(lines, rows, strict=True):
                _agree(names, label, path.rpartition("_")[0], source, number)
            self.put(split, source, [f"images/{path}.jpg" for path, _ in rows], "images",
                     [number for number, _ in lines], classes=np.array([label for _, label in rows]))
        lacking = next((label for label in range(len(names)) if label not in names), None)
        if lacking is not None:
            raise UserError(f"pets: the lists in {self.root / 'annotations'} have no image of class {lacking + 1}, and "
                            f"{len(names)} others up to {max(names) + 1}: get the lists again")
        self.class_names = tuple(names[label].replace("_", " ") for label in range(len(names)))


def _convert(line: str) -> tuple[str, int]:
    name, label, *others = line.split()
    if len(others) != 2 or "_" not in name or int(label) < 1:
        raise ValueError(line)
    return name, int(label) - 1


def _agree(names: dict[int, str], label: int, breed: str, source: Path, number: int) -> None:
    """One number stands for one breed.

    Raises:
        UserError: it does not.
    """
    if names.setdefault(label, breed) != breed:
        raise UserError(f"{source}, line {number}: class {label + 1} is {breed} here and {names[label]} elsewhere: get "
                        "the lists again")
