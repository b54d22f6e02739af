"""What all data sets have in common that are folders of files.

Such a data set declares its samples' names, the pattern of its images' paths and a :class:`Field` for each label. The
folder is checked once, from one listing of each sub-folder: no file is opened, and none is asked for one by one.
"""

from __future__ import annotations

import hashlib
import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from harness.errors import UserError
from transfer.data._arrays import held_out
from transfer.data._files import read_colours
from transfer.data.base import DataSet, Label, Sample, Split
from transfer.transforms import Geometry, Size, as_size

if TYPE_CHECKING:
    from transfer.tasks.base import Task

Lacking = Literal["refuse", "accept"]
NAMED = 3
"""How many missing files a message names."""


@dataclass(frozen=True)
class Field:
    """One label of a folder.

    Args:
        label: what it is.
        read: its file to a target.
        paths: patterns of the file's path below the root, the first that is there counts. ``{}`` is the sample's name,
            ``{folder}`` and ``{base}`` its part before and after the last slash, ``{stem}`` the latter without
            extension.
        optional: whether the data set was published with samples that lack it.
        own_size: it may have another size than the image.
    """

    label: Label
    read: Callable[[Path], np.ndarray]
    paths: tuple[str, ...]
    optional: bool = False
    own_size: bool = False


@dataclass(frozen=True)
class Known:
    """One label that a list of the data set tells, not a file of its own.

    Args:
        label: what it is.
        values: target of each sample by name; samples without one lack the label.
        draw: makes a map of a value, the image's height and its width, for tasks with a value for each pixel.
    """

    label: Label
    values: Mapping[str, np.ndarray]
    draw: Callable[[np.ndarray, int, int], np.ndarray] | None = None

    def digest(self) -> bytes:
        """Of all names and values."""
        if isinstance(self.values, Table):
            return self.values.digest()
        whole = hashlib.blake2b(digest_size=16)
        for name, value in self.values.items():
            whole.update(name.encode(errors="surrogateescape") + b"\0" + np.asarray(value).tobytes())
        return whole.digest()


class Table(dict):
    """Some columns of a table by the name of the row, taken when they are asked for.

    Args:
        rows: number of each row by name.
        numbers: uint8 ``[rows, columns]``.
        columns: the columns.
    """

    def __init__(self, rows: dict[str, int], numbers: np.ndarray, columns: Sequence[int]) -> None:
        super().__init__()
        self.rows, self.numbers, self.columns = rows, numbers, list(columns)

    def __contains__(self, name: object) -> bool:
        return name in self.rows

    def __getitem__(self, name: str) -> np.ndarray:
        return self.numbers[self.rows[name]][self.columns]

    def __reduce__(self):
        return Table, (self.rows, self.numbers, self.columns)

    def digest(self) -> bytes:
        """Of the columns."""
        return hashlib.blake2b(self.numbers[:, self.columns].tobytes(), digest_size=16).digest()


def draw_point(point: np.ndarray, height: int, width: int) -> np.ndarray:
    """The map of a point (x, y) that the task ``localization`` is trained with.

    Raises:
        UserError: it lies outside.
    """
    from transfer.tasks.localization import gaussian_map

    x, y = map(float, point)
    if not (0 <= x <= width and 0 <= y <= height):
        raise UserError(f"the point ({x:g}, {y:g}) lies outside of an image of {height}×{width}: points are x and y in "
                        "pixels of the image")
    return gaussian_map(x, y, height, width)


class Listing:
    """Which files are below a folder, asked once for each sub-folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folders: dict[str, frozenset[str]] = {}

    def names(self, folder: str) -> frozenset[str]:
        """What is in a sub-folder; nothing if it is not there."""
        if folder not in self._folders:
            try:
                self._folders[folder] = frozenset(os.listdir(self.root / folder))
            except (OSError, ValueError):  # the latter of names that no file system takes
                self._folders[folder] = frozenset()
        return self._folders[folder]

    def __contains__(self, path: str) -> bool:
        folder, _, name = path.rpartition("/")
        return name in self.names(folder)

    def folder_of(self, *candidates: str) -> str:
        """The first candidate that is a folder with something in it, else the first."""
        return next((folder for folder in candidates if self.names(folder)), candidates[0])


def expand(pattern: str, name: str) -> str:
    """A pattern of :class:`Field` for one sample."""
    folder, _, base = name.rpartition("/")
    return pattern.format(name, folder=folder, base=base, stem=base.partition(".")[0])


class FolderData(DataSet):
    """A data set of files below a folder.

    A subclass sets :attr:`about`, :attr:`image`, :attr:`published` and, before it calls :meth:`_check`, :attr:`fields`.

    Args:
        name: of the data set.
        root: its folder.
        lacking: whether a label file that should be there and is not is refused, or makes a sample without that label.
        size: side, or height and width, that images and labels are brought to when they are read.
        val_count: training samples that become the split ``val``, for data sets that have none.
        seed: of that draw.

    Attributes:
        fields: labels by the name of their task.
        image: pattern of the images' paths, as of :class:`Field`.
        published: what the publication calls our splits.
    """

    image: str
    fields: dict[str, Field | Known]
    published: ClassVar[Mapping[str, str]] = {"train": "train", "test": "val"}
    read_image: Callable[[Path], np.ndarray] = staticmethod(read_colours)

    def __init__(self, name: str, root: str | None, lacking: Lacking = "refuse", size: Size | None = None,
                 val_count: int = 0, seed: int = 0) -> None:
        self.name, self.lacking, self.size = name, lacking, as_size(size, name)
        self.val_count, self.seed = val_count, seed
        if lacking not in ("refuse", "accept"):
            raise UserError(f"{name}: lacking is '{lacking}': choose refuse or accept")
        if val_count < 0:
            raise UserError(f"{name}: val_count is {val_count}: it must not be negative")
        self.root = existing_root(name, root)
        self.listing = Listing(self.root)
        self._names: dict[str, list[str]] = {}
        self._counts: dict[str, int] = {}

    @abstractmethod
    def names_of(self, split: str) -> Sequence[str]:
        """The samples of a published split by name, in order; the image of each is at the pattern :attr:`image`.

        Raises:
            UserError: the list of the split cannot be read.
        """

    @property
    def labels(self) -> dict[str, Label]:
        return {task: field.label for task, field in self.fields.items()}

    def _check(self) -> None:
        """Look at the folder once.

        Raises:
            UserError: a list or an image is missing, a sample is named twice or in two splits, or splits are swapped.
        """
        for own, split in self.published.items():
            names = list(self.names_of(split))
            if not names:
                raise UserError(f"{self.name}: split {split} in {self.root} has no samples: {self.hint}")
            repeated = _first_repeated(names)
            if repeated is not None:
                raise UserError(f"{self.name}: sample {repeated} is twice in split {split} of {self.root}: "
                                "remove one of the lines")
            for other, before in self._names.items():
                common = set(before).intersection(names)
                if common:
                    raise UserError(f"{self.name}: sample {min(common)} is in split {self.published[other]} and in "
                                    f"split {split} of {self.root} ({len(common)} samples are): results would be those "
                                    "of training images. Get the lists again")
            missing = [path for name in names if (path := expand(self.image, name)) not in self.listing]
            if missing:
                raise UserError(f"{self.name}: {len(missing)} of {len(names)} images of split {split} are missing in "
                                f"{self.root}: {some(missing)}: {self.hint}")
            self._names[own], self._counts[split] = names, len(names)
        _check_swapped(self)
        self.splits = tuple(self.published)
        if self.val_count:
            if "val" in self.published:
                raise UserError(f"{self.name}: val_count is {self.val_count}, and the data set has a split 'val' of "
                                "its own: leave val_count at 0")
            names = self._names["train"]
            chosen = held_out(self.name, len(names), self.val_count, self.seed)
            self._names["val"] = [name for name, held in zip(names, chosen, strict=True) if held]
            self._names["train"] = [name for name, held in zip(names, chosen, strict=True) if not held]
            self.splits = ("train", "val", "test")

    @property
    def hint(self) -> str:
        """What to do about an incomplete folder."""
        return f"python -m transfer.data where {self.name} shows the folder that is read"

    def missing(self, split: str, task: str) -> list[str]:
        """Paths of the label files that should be there and are not."""
        field = self.fields[task]
        if isinstance(field, Known) or field.optional:
            return []
        return [expand(field.paths[0], name) for name in self._names[split] if self._path(field, name) is None]

    def remarks(self) -> list[str]:
        """What differs from the data set as published: counts, and label files that are missing."""
        published = self.about.counts if self.about else {}
        own = {split: name for name, split in self.published.items()}
        found = [f"split {own[split]} was published with {published[split]} samples"
                 f"{'' if own[split] == split else f' (as {split})'}, and {count} are there"
                 for split, count in self._counts.items() if count != published.get(split, count)]
        for split in self.splits:
            for task in self.fields:
                missing = self.missing(split, task)
                if missing:
                    found.append(f"{len(missing)} of {len(self._names[split])} labels of task {task} are missing in "
                                 f"split {split}: {some(missing)}")
        return found

    def _path(self, field: Field, name: str) -> str | None:
        return next((path for pattern in field.paths if (path := expand(pattern, name)) in self.listing), None)

    def load(self, split: str) -> FolderSplit:
        names, sources = self._names[split], {}
        for task in self.tasks:
            field = self.fields[task]
            if isinstance(field, Known):
                sources[task] = field
                continue
            missing = self.missing(split, task)
            if len(missing) == len(names):
                raise UserError(f"{self.name}: there is no label of task '{task}' in {self.root}: {missing[0]} and all "
                                f"others of split {split} are missing. Choose other tasks; {self.hint}")
            if missing and self.lacking == "refuse":
                raise UserError(f"{self.name}: {len(missing)} of {len(names)} labels of task '{task}' are missing in "
                                f"{self.root}: {some(missing)}: get them again, or train on what is there with "
                                "--data.lacking accept")
            sources[task] = field
        return FolderSplit(
            split, self.root, names, [expand(self.image, name) for name in names], dict(self.tasks),
            {task: [self._path(source, name) for name in names] for task, source in sources.items()
             if isinstance(source, Field)},
            sources, self.size, self.read_image)

    def fingerprint(self) -> str:
        """Of all samples' names, the labels that they have, lists and options; a moved folder is the same."""
        whole = hashlib.blake2b(digest_size=6)
        for split in self.splits:
            whole.update("\n".join([split, *self._names[split]]).encode(errors="surrogateescape"))
            for task, field in self.fields.items():
                if isinstance(field, Field):
                    held = [self._path(field, name) is not None for name in self._names[split]]
                    whole.update(task.encode() + np.packbits(np.array(held, bool)).tobytes())
        for task, field in self.fields.items():
            if isinstance(field, Known):
                whole.update(task.encode() + field.digest())
        size = "x".join(map(str, self.size)) if self.size else "own"
        return "-".join([self.name, whole.hexdigest(), size, *map(str, self.options())])  # held-out names are in it

    def options(self) -> Iterable[object]:
        """Values of the options that change samples, for the fingerprint."""
        return ()


class FolderSplit(Split):
    """Samples of one split of a folder.

    Args:
        name: of the split.
        root: the folder that paths are relative to.
        names: of its samples.
        images: path of each image.
        tasks: that are read.
        files: path of each sample's label by task; None where there is none.
        sources: what each task's labels are.
        size: that samples are brought to; their own when none.
        read_image: an image file to uint8 ``[H, W, C]``.
    """

    def __init__(self, name: str, root: Path, names: Sequence[str], images: Sequence[str], tasks: dict[str, Task],
                 files: Mapping[str, Sequence[str | None]], sources: Mapping[str, Field | Known],
                 size: tuple[int, int] | None = None,
                 read_image: Callable[[Path], np.ndarray] = read_colours) -> None:
        self.name, self.root, self.names, self.images, self.tasks = name, root, names, images, tasks
        self.size, self._read_image, self.files = size, read_image, files
        self._fields = {task: source for task, source in sources.items() if isinstance(source, Field)}
        self._known = {task: source for task, source in sources.items() if isinstance(source, Known)}

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        name, targets = self.names[index], {}
        image = self._read_image(self.root / self.images[index])
        for task in self.tasks:
            if task in self._known:
                known = self._known[task]
                if name in known.values:
                    targets[task] = known.values[name] if known.draw is None else self._drawn(known, index, image)
                continue
            file = self.files[task][index]
            if file is None:
                continue
            field, path = self._fields[task], self.root / file
            target = field.read(path)
            if self.tasks[task].dense and not field.own_size and target.shape[:2] != image.shape[:2]:
                raise UserError(f"{path} is {size_text(target)} pixels and its image {self.root / self.images[index]} "
                                f"{size_text(image)}: labels need the image's size")
            targets[task] = target
        sample: Sample = {"image": image, "id": f"{self.name}/{name}", "targets": targets}
        return sample if self.size is None else resized(sample, self.tasks, self.size)

    def _drawn(self, known: Known, index: int, image: np.ndarray) -> np.ndarray:
        try:
            return known.draw(known.values[self.names[index]], *image.shape[:2])
        except UserError as error:
            raise UserError(f"{self.root / self.images[index]}: {error}") from error

    @property
    def sizes(self) -> dict[str, int]:
        """How many samples have a label of each task."""
        held = {task: sum(path is not None for path in paths) for task, paths in self.files.items()}
        counts: dict[int, int] = {}  # forty tasks of one table have the same rows
        for task, known in self._known.items():
            rows = getattr(known.values, "rows", known.values)
            if id(rows) not in counts:
                counts[id(rows)] = sum(name in rows for name in self.names)
            held[task] = counts[id(rows)]
        return held


def resized(sample: Sample, tasks: Mapping[str, Task], size: tuple[int, int]) -> Sample:
    """A sample at another size: the image with area weights, labels by their nearest pixel and their tasks' rules."""
    image = sample["image"]
    geometry = Geometry(*image.shape[:2], *size, stretch=True)
    targets = {task: tasks[task].apply(target, geometry) for task, target in sample["targets"].items()}
    return {**sample, "image": geometry.image(image), "targets": targets}


def existing_root(name: str, root: str | None) -> Path:
    """The folder of a data set.

    Raises:
        UserError: none is given, or it is not there.
    """
    if not root:
        raise UserError(f"{name}: data.root is not set: give its folder with --data.root DIR "
                        f"(python -m transfer.data where {name} says where to get it)")
    path = Path(root).expanduser()
    if not path.is_dir():
        raise UserError(f"{name}: {path} is {'a file' if path.exists() else 'not there'}: give the data set's folder")
    return path


def read_list(name: str, path: Path, hint: str) -> list[str]:
    """The lines of a text file that are not blank.

    Raises:
        UserError: it cannot be read as text.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"{name}: the list {path} is missing ({error.strerror}): {hint}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: {path} is not a text file: {hint}") from error
    return [text for line in lines if (text := line.strip())]


def some(paths: Sequence[str]) -> str:
    """The first of many, for a message."""
    return ", ".join(paths[:NAMED]) + (", …" if len(paths) > NAMED else "")


def size_text(array: np.ndarray) -> str:
    """``height×width``."""
    return f"{array.shape[0]}×{array.shape[1]}"


def _first_repeated(names: Sequence[str]) -> str | None:
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), None) \
        if len(set(names)) < len(names) else None


def _check_swapped(data: FolderData) -> None:
    """Refuse lists that have each other's published lengths.

    Raises:
        UserError: they have.
    """
    counts = data.about.counts if data.about else {}
    for one in counts:
        for other in counts:
            found = data._counts.get(one), data._counts.get(other)
            if one < other and counts[one] != counts[other] and found == (counts[other], counts[one]):
                raise UserError(f"{data.name}: splits {one} and {other} in {data.root} are swapped: they have "
                                f"{counts[other]} and {counts[one]} samples, and were published with {counts[one]} and "
                                f"{counts[other]}. Exchange their lists")
