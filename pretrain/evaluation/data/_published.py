"""What published sets of files share: folders found, lists read, and each image that a list names looked for once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from harness.errors import UserError
from pretrain.evaluation.data._images import ImageFiles
from pretrain.evaluation.labelled import LABELLED, Labelled, LabelledImages
from pretrain.sources._listing import list_images
from pretrain.sources.base import Paths, existing_folder


class FileSet(Labelled):
    """A set whose splits are lists of files. A subclass's constructor gives each with :meth:`put`.

    Args:
        root: its folder.

    Attributes:
        class_names: of the classes, the attributes or the masks.
        kind: which of them (:data:`pretrain.evaluation.labelled.KINDS`).
    """

    kind = "class"
    class_names: tuple[str, ...] = ()

    def __init__(self, root: str | None) -> None:
        self.root = existing_folder(root)
        self._parts: dict[str, ImageFiles] = {}
        self._listed: dict[str, Paths] = {}
        self._folder_of: dict[str, str] = {}
        self._remarks: list[str] = []

    @property
    def name(self) -> str:
        """What it is registered as."""
        return LABELLED.name_of(type(self))

    @property
    def hint(self) -> str:
        """What to do about an incomplete folder."""
        return f"python -m pretrain.evaluate data where {self.name} shows the folder that is read"

    @property
    def names(self) -> Mapping[str, tuple[str, ...]]:
        return {self.kind: self.class_names}

    def load(self, split: str) -> LabelledImages:
        return self._parts[split]

    def fingerprint(self) -> str:
        whole = hashlib.blake2b(digest_size=8)
        whole.update("\0".join([self.kind, self.learn, self.test, *self.class_names]).encode(errors="surrogateescape"))
        for split, part in self._parts.items():
            whole.update(f"\n{split} {part.fingerprint()} {part.label_digest()}".encode())
        return f"{self.name}-{whole.hexdigest()}"

    def remarks(self) -> list[str]:
        published = self.about.counts if self.about else {}
        counts = {split: len(part) for split, part in self._parts.items()}
        return [*self._remarks, *(f"split {split} was published with {published[split]} images, and {count} are there"
                                  for split, count in counts.items() if published.get(split, count) != count)]

    # -- what subclasses use ----------------------------------------------------------------------

    def find(self, *candidates: str) -> Path:
        """The first file or folder that is there, relative to the root.

        Raises:
            UserError: none is.
        """
        for candidate in candidates:
            if os.path.exists(self.root / candidate):
                return self.root / candidate
        others = f" (nor {', '.join(candidates[1:])})" if len(candidates) > 1 else ""
        raise UserError(f"{self.name}: {self.root} has no {candidates[0]}{others}: {self.hint}")

    def put_list(self, split: str, source: Path, folder: str, convert: Callable[[str], tuple[str, int]],
                 expected: str) -> None:
        """One split of a list with an image and its class in each line.

        Args:
            split: its name.
            source: the list.
            folder: that all images lie below, relative to the root.
            convert: a line to the image's path, relative to the root, and its class; raises ValueError, IndexError or
                KeyError where it is damaged.
            expected: what a line should be.

        Raises:
            UserError: a line is damaged, or anything of :meth:`put`.
        """
        lines = self.read_lines(source)
        rows = parse(source, lines, convert, expected)
        self.put(split, source, [path for path, _ in rows], folder, [number for number, _ in lines],
                 classes=np.array([label for _, label in rows]))

    def put(self, split: str, source: Path, paths: Sequence[str], folder: str, lines: Sequence[int] | None = None,
            **labels: np.ndarray) -> None:
        """One split, whose images a list names.

        Args:
            split: its name.
            source: the list, for messages.
            paths: of the images, relative to the root.
            folder: that all of them lie below; it is listed once.
            lines: the list's line of each image, where it has lines.
            labels: as of :class:`pretrain.evaluation.data._images.ImageFiles`.

        Raises:
            UserError: it has no images, an image is named twice or in two splits, or is not there.
        """
        if not paths:
            raise UserError(f"{self.name}: {source} names no images: {self.hint}")
        first = _first_repeated(paths)
        if first is not None:
            places = [place for place, path in enumerate(paths) if path == first]
            one, two = (f"line {lines[place]}" if lines else f"entry {place + 1}" for place in places[:2])
            raise UserError(f"{source}, {two}: {first} is in {one} already: remove one of them")
        for other, part in self._parts.items():
            if self._folder_of[other] != folder:
                continue  # splits in folders of their own have no file in common
            common = set(paths).intersection(part.paths)
            if common:
                raise UserError(f"{self.name}: {min(common)} is in split {other} and in split {split} ({len(common)} "
                                "images are): results would be those of training images. Get the lists again")
        self.require_files(source, "images", paths, folder)
        self._parts[split], self._folder_of[split] = ImageFiles(self.root, Paths(paths), **labels), folder

    def require_files(self, source: Path, what: str, paths: Sequence[str], folder: str) -> None:
        """Refuse a list that names files which are not there.

        Args:
            source: the list, for messages.
            what: the files are.
            paths: relative to the root.
            folder: that all of them lie below; it is listed once.

        Raises:
            UserError: some are missing; the message has their number and the first.
        """
        if folder not in self._listed:
            if not (self.root / folder).is_dir():
                raise UserError(f"{self.name}: {self.root} has no folder {folder}: {self.hint}")
            self._listed[folder], remarks = list_images(self.root, [folder])
            self._remarks += remarks
        there = set(self._listed[folder])  # which is large, and needed once
        missing = [path for path in paths if path not in there]
        if missing:
            raise UserError(f"{self.name}: {len(missing)} of the {len(paths)} {what} that {source} names are missing "
                            f"in {self.root}, the first being {missing[0]}: {self.hint}")

    def read_names(self, path: Path) -> list[str]:
        """The lines of a list of classes, each of them once.

        Raises:
            UserError: it cannot be read as text, or has one twice.
        """
        lines: dict[str, int] = {}
        for number, name in self.read_lines(path):
            if lines.setdefault(name, number) != number:
                raise UserError(f"{path}, line {number}: {name} is in line {lines[name]} already: get the file again")
        return list(lines)

    def read_lines(self, path: Path) -> list[tuple[int, str]]:
        """The lines of a list that are not blank, with their numbers from 1.

        Raises:
            UserError: it cannot be read as text.
        """
        return read_lines(path, f"{self.name}: ", self.hint)


def read_lines(path: Path, before: str, hint: str) -> list[tuple[int, str]]:
    """See :meth:`FileSet.read_lines`.

    Args:
        path: of the list.
        before: begins the message.
        hint: what to do about a missing list.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"{before}the list {path} cannot be read ({error.strerror}): {hint}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{before}{path} is not a text file: {hint}") from error
    return [(number, text) for number, line in enumerate(lines, 1) if (text := line.strip())]


def damaged(path: Path, number: int, line: str, expected: str) -> UserError:
    """The error of one line of a list.

    Args:
        path: of the list.
        number: of the line, from 1.
        line: as it is.
        expected: what it should be.
    """
    shown = line if len(line) <= 60 else f"{line[:57]}…"
    return UserError(f"{path}, line {number}: '{shown}' is not {expected}: get the file again")


def parse(path: Path, lines: Iterable[tuple[int, str]], convert: Callable[[str], tuple], expected: str) -> list[tuple]:
    """Each line of a list converted.

    Args:
        path: of the list.
        lines: numbered.
        convert: one line; raises ValueError, IndexError or KeyError where it is damaged.
        expected: what a line should be.

    Raises:
        UserError: one is damaged; the message has the file and the line's number.
    """
    found = []
    for number, line in lines:
        try:
            found.append(convert(line))
        except (ValueError, IndexError, KeyError) as error:
            raise damaged(path, number, line, expected) from error
    return found


def _first_repeated(names: Sequence[str]) -> str | None:
    if len(set(names)) == len(names):
        return None
    seen: set[str] = set()
    return next(name for name in names if name in seen or seen.add(name))
