"""Food-101."""

from __future__ import annotations

from harness.about import About
from pretrain.evaluation.data._published import FileSet
from pretrain.evaluation.labelled import LABELLED


@LABELLED.register("food101")
class Food101(FileSet):
    """Food-101 (Bossard et al., 2014): photographs of 101 dishes; training labels are noisy on purpose.

    Reported as top-1 accuracy (Kornblith et al., 2019, "Do better ImageNet models transfer better?", table 1).

    Args:
        root: the folder with ``images`` and ``meta``.
    """

    holds = "class"
    about = About(
        "Food-101", "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
        "images of foodspotting.com, not the publishers' own: for scientific fair use", """\
ROOT/ (or food-101 in it)
  images/CLASS/NUMBER.jpg
  meta/classes.txt                 one class a line
  meta/train.txt, test.txt         CLASS/NUMBER a line: 75750 and 25250""", {"train": 75750, "test": 25250})

    def __init__(self, root: str | None = None) -> None:
        super().__init__(root)
        meta = self.find("meta", "food-101/meta")
        base = meta.relative_to(self.root).parent
        self.class_names = tuple(self.read_names(meta / "classes.txt"))
        numbers = {name: number for number, name in enumerate(self.class_names)}
        folder = (base / "images").as_posix()

        def convert(line: str) -> tuple[str, int]:
            name, picture = line.split("/")
            if not picture:
                raise ValueError(line)
            return f"{folder}/{line}.jpg", numbers[name]

        for split in self.splits:
            self.put_list(split, meta / f"{split}.txt", folder, convert, "CLASS/NUMBER with a class of classes.txt")
