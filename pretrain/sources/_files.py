"""What the sources of plain files share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from harness.errors import UserError
from pretrain.sources.base import Paths, Source


class Files(Source):
    """Images that are files below a folder.

    Args:
        kind: what the source is called in fingerprints.
        root: the folder.
        paths: of the images, relative to it.
        labelled: whether the first sub-folder on the path is the image's class; images that lie in none
            are a class of their own.
        remarks: see :meth:`Source.remarks`.

    Attributes:
        classes: names of the classes, sorted; empty where there are none.
    """

    def __init__(self, kind: str, root: Path, paths: Paths, labelled: bool = False,
                 remarks: Iterable[str] = ()) -> None:
        self.kind, self.root, self.paths, self._remarks = kind, root, paths, list(remarks)
        self.classes: list[str] = []
        self._labels: np.ndarray | None = None
        if labelled:
            folders = [first_folder(path) for path in paths]
            self.classes = sorted(set(folders))
            numbers = {name: number for number, name in enumerate(self.classes)}
            self._labels = np.array([numbers[folder] for folder in folders], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.paths)

    def encoded(self, number: int) -> Path:
        """The file's path."""
        return self.root / self.paths[number]

    def name(self, number: int) -> str:
        """The path below the folder."""
        return self.paths[number]

    def label(self, number: int) -> int | None:
        """Number of the first sub-folder on the path, if asked for."""
        return None if self._labels is None else int(self._labels[number])

    def labels(self) -> np.ndarray | None:
        """:meth:`label` of all images."""
        return self._labels

    def fingerprint(self) -> str:
        """Hash of the paths below the folder: a moved folder is the same source."""
        return f"{self.kind}-{len(self)}-{self.paths.digest()}"

    def remarks(self) -> list[str]:
        """Folders that cannot be read, and parts that are missing."""
        return self._remarks


def first_folder(path: str) -> str:
    """The first folder on a relative path, or nothing."""
    folder, slash, _ = path.partition("/")
    return folder if slash else ""


def find_parts(root: Path, candidates: Sequence[str], parts: Callable[[Path], list[str]],
               expected: str) -> tuple[Path, list[str]]:
    """The folder of a published set that holds its parts, wherever its archives were unpacked below ``root``.

    Args:
        root: what the user gave.
        candidates: folders to try, relative to it; the first that holds the parts counts.
        parts: the parts in a folder; nothing if it does not hold what is wanted.
        expected: the layout, for the message.

    Returns:
        The folder, and its parts.

    Raises:
        UserError: none of them holds the parts.
    """
    for candidate in candidates:
        folder = root / candidate
        try:
            found = parts(folder) if folder.is_dir() else []
        except OSError as error:
            raise UserError(f"the folder {folder} cannot be read ({error.strerror}): give yourself the right to read "
                            "it, or choose another --data.root") from error
        if found:
            return folder, found
    holds = sorted(entry.name for entry in root.iterdir() if not entry.name.startswith("."))
    there = ", ".join(holds[:5]) + (", …" if len(holds) > 5 else "") if holds else "nothing"
    unpack = "; unpack the archives first" if any(name.endswith((".zip", ".tar", ".gz")) for name in holds) else ""
    raise UserError(f"{root} is not laid out as published: expected {expected}, and it holds {there}{unpack}. Set "
                    "--data.root to the folder above, or use --data.name folder for any other layout")


def require_images(paths: Paths, root: Path) -> None:
    """Refuse an empty set.

    Raises:
        UserError: there is no image.
    """
    if not len(paths):
        raise UserError(f"there are no images in {root}: unpack the archives there, or set another --data.root")


def other_counts(paths: Paths, published: dict[str, int], of: str) -> list[str]:
    """Remarks about parts whose number of images is not the published one.

    Args:
        paths: their first folder is the part.
        published: images in each part.
        of: the set's name.
    """
    counts = Counter(first_folder(path) for path in paths)
    return [f"{of} {part} was published with {published[part]} images, and {count} are there"
            for part, count in sorted(counts.items()) if part in published and count != published[part]]
