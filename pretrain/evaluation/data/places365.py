"""Places365."""

from __future__ import annotations

from functools import partial
from typing import Literal

from harness.about import About
from harness.errors import UserError
from pretrain.evaluation.data._published import FileSet, damaged, parse
from pretrain.evaluation.labelled import LABELLED

_FOLDERS = {
    "large": (("data_large", "data_large_standard"), ("val_large",)),
    "256": (("data_256", "data_256_standard"), ("val_256",)),
}
"""Names that the archives of each size unpack to, of training and of validation images."""


@LABELLED.register("places365")
class Places365(FileSet):
    """Places365-Standard (Zhou et al., 2017): 365 kinds of scenes, reported as top-1 accuracy on the split ``val``.

    Args:
        root: the folder with the lists and the images.
        images: ``large``: at least 512 pixels; ``256``: 256×256; the larger ones that are there when none.
    """

    holds = "class"
    about = About(
        "Places365-Standard", "http://places2.csail.mit.edu/download.html",
        "images are their owners'; for non-commercial research and education", """\
ROOT/
  categories_places365.txt         /a/airfield 0 a line
  places365_train_standard.txt     /a/airfield/00000001.jpg 0 a line: 1803460
  places365_val.txt                Places365_val_00000001.jpg 165 a line: 36500
  data_large/a/airfield/…          or data_256 (also as data_256_standard)
  val_large/…                      or val_256""", {"train": 1803460, "val": 36500})
    splits = ("train", "val")
    test = "val"

    def __init__(self, root: str | None = None, images: Literal["large", "256"] | None = None) -> None:
        super().__init__(root)
        train, val = self._folders([images] if images else list(_FOLDERS))
        source = self.find("categories_places365.txt")
        lines = self.read_lines(source)
        rows = parse(source, lines, _convert, "/LETTER/CLASS NUMBER")
        names: dict[int, str] = {}
        for (line, text), (name, number) in zip(lines, rows, strict=True):
            if number >= len(rows) or names.setdefault(number, name) != name:
                raise damaged(source, line, text, f"a class with a number of its own from 0 to {len(rows) - 1}")
        self.class_names = tuple(names[number].partition("/")[2] for number in range(len(rows)))
        for split, file, folder in (("train", "train_standard", train), ("val", "val", val)):
            self.put_list(split, self.find(f"places365_{file}.txt"), folder, partial(self._image, folder),
                          f"PATH NUMBER with a number below {len(self.class_names)}")

    def _image(self, folder: str, line: str) -> tuple[str, int]:
        path, number = _convert(line)
        if number >= len(self.class_names):
            raise ValueError(line)
        return f"{folder}/{path}", number

    def _folders(self, sizes: list[str]) -> tuple[str, str]:
        """Folders of training and validation images of the same size."""
        for size in sizes:
            train, val = ([folder for folder in folders if (self.root / folder).is_dir()] for folders in _FOLDERS[size])
            if train and val:
                return train[0], val[0]
        pairs = " or ".join(f"data_{size} with val_{size}" for size in sizes)
        raise UserError(f"places365: {self.root} does not hold {pairs}: {self.hint}")


def _convert(line: str) -> tuple[str, int]:
    path, number = line.rsplit(maxsplit=1)
    if int(number) < 0:
        raise ValueError(line)
    return path.lstrip("/"), int(number)
