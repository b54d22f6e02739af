"""ImageNet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from harness.about import About
from pretrain.evaluation.data.folder import ClassFolders
from pretrain.evaluation.labelled import LABELLED


@LABELLED.register("imagenet")
class LabelledImageNet(ClassFolders):
    """ImageNet (ILSVRC 2012; Russakovsky et al., 2015), or a subset in its form, measured on ``val`` by top-1 accuracy.

    Classes are in the order of their folders, WordNet's numbers, and go by their first word there.

    Args:
        root: the folder with ``train`` and ``val``.
        train: folder of the images that classifiers learn from.
        test: folder of the images that are measured.
    """

    holds = "class"
    about = About(
        "ImageNet (ILSVRC 2012)", "https://image-net.org/challenges/LSVRC/2012/",
        "images are their owners'; for non-commercial research and education", """\
ROOT/
  train/n01440764/n01440764_18.JPEG …       1281167 in 1000 folders
  val/n01440764/ILSVRC2012_val_00000293.JPEG …    50000 in the same""", {"train": 1281167, "val": 50000},
        "the validation images are published in one folder: they are to be sorted into folders of their classes")

    def __init__(self, root: str | None = None, train: str = "train", test: str = "val") -> None:
        super().__init__(root, train, test)
        self._words = words_of(self.class_names)

    @property
    def names(self) -> Mapping[str, tuple[str, ...]]:
        return {"class": self._words}

    def remarks(self) -> list[str]:
        return super().remarks() if len(self.class_names) == 1000 else self._remarks  # a subset is one on purpose


def words_of(numbers: Sequence[str]) -> tuple[str, ...]:
    """The first of WordNet's words for each of its numbers.

    Args:
        numbers: like n01440764; those that WordNet has not stay. Where two have the same word, both get their number.
    """
    from timm.data import ImageNetInfo

    known = ImageNetInfo("imagenet-22k").label_descriptions(as_dict=True)
    words = {number: known.get(number, number).partition(",")[0] for number in numbers}
    count = Counter(words.values())
    return tuple(word if count[word] == 1 else f"{word} ({number})" for number, word in words.items())
