"""CIFAR-10."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from harness.about import About
from harness.array_pickle import read_pickle
from harness.errors import UserError
from pretrain.evaluation.labelled import LABELLED, Labelled, LabelledImages
from pretrain.sources.base import existing_folder

SIDE, CLASSES = 32, 10
_ROW = 3 * SIDE * SIDE
_BATCHES = {"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)}
_FORMS = {"cifar-10-batches-py": ("", "batches.meta"), "cifar-10-batches-bin": (".bin", "batches.meta.txt")}
"""Folder -> suffix of its batches, and the file with the names of the classes."""


@LABELLED.register("cifar10")
class Cifar10(Labelled):
    """CIFAR-10 (Krizhevsky, 2009): 60000 pictures of 32×32 pixels of ten kinds, reported as top-1 accuracy.

    They are enlarged to 224 pixels, as is usual for networks of that input (Chen et al., 2020, "A simple framework for
    contrastive learning", appendix on transfer); ``--features.resize 0 --features.crop 0`` leaves them as they are.

    Args:
        root: the folder with ``cifar-10-batches-py`` or ``cifar-10-batches-bin``, or one of these.
    """

    holds = "class"
    about = About(
        "CIFAR-10", "https://www.cs.toronto.edu/~kriz/cifar.html", "none given", """\
ROOT/cifar-10-batches-py/
  data_batch_1 to data_batch_5, test_batch, batches.meta
or ROOT/cifar-10-batches-bin/
  data_batch_1.bin to data_batch_5.bin, test_batch.bin, batches.meta.txt""", {"train": 50000, "test": 10000},
        "pickles are read without running what they name")
    resize = crop = 224

    def __init__(self, root: str | None = None) -> None:
        self.folder, suffix, meta = _find(existing_folder(root))
        self.class_names = _class_names(self.folder / meta)
        self._parts = {}
        for split, batches in _BATCHES.items():
            read = [_read_binary(self.folder / f"{batch}{suffix}") if suffix else _read_pickled(self.folder / batch)
                    for batch in batches]
            images, labels = (np.concatenate(arrays) for arrays in zip(*read, strict=True))
            self._parts[split] = _Pictures(split, images, labels)

    @property
    def names(self) -> Mapping[str, tuple[str, ...]]:
        return {"class": self.class_names}

    def fingerprint(self) -> str:
        whole = hashlib.blake2b("\0".join(self.class_names).encode(), digest_size=8)
        for part in self._parts.values():
            whole.update(part.fingerprint().encode() + part.classes().tobytes())
        return f"cifar10-{whole.hexdigest()}"

    def remarks(self) -> list[str]:
        return [f"split {split} was published with {self.about.counts[split]} images, and {len(part)} are there"
                for split, part in self._parts.items() if len(part) != self.about.counts[split]]

    def load(self, split: str) -> LabelledImages:
        return self._parts[split]


class _Pictures(LabelledImages):
    """A split in memory.

    Args:
        split: its name.
        images: uint8 ``[N, 3072]``, red, green, then blue.
        labels: int64 ``[N]``.
    """

    def __init__(self, split: str, images: np.ndarray, labels: np.ndarray) -> None:
        self.split, self.images, self._labels = split, images, labels

    def __len__(self) -> int:
        return len(self.images)

    def image(self, number: int) -> np.ndarray:
        return np.ascontiguousarray(self.images[number].reshape(3, SIDE, SIDE).transpose(1, 2, 0))

    def name(self, number: int) -> str:
        return f"{self.split} image {number}"

    def fingerprint(self) -> str:
        return f"cifar10-{len(self)}-{hashlib.blake2b(np.ascontiguousarray(self.images), digest_size=8).hexdigest()}"

    def classes(self) -> np.ndarray:
        return self._labels


def _find(root: Path) -> tuple[Path, str, str]:
    """The folder with the files at or below ``root``, the suffix of its batches and the file of its classes.

    Raises:
        UserError: neither form is whole; the message says what is missing.
    """
    lacks = {}
    for name, (suffix, meta) in _FORMS.items():
        files = [*(f"{batch}{suffix}" for batches in _BATCHES.values() for batch in batches), meta]
        for folder in (root / name, root):
            missing = [file for file in files if not (folder / file).is_file()]
            if not missing:
                return folder, suffix, meta
            if len(missing) < len(files):
                lacks[folder] = missing
    if lacks:
        folder, missing = next(iter(lacks.items()))
        raise UserError(f"cifar10: {folder} lacks {', '.join(missing)}: unpack the official archive again")
    raise UserError(f"cifar10: neither {root} nor {' or '.join(_FORMS)} in it has the official files: "
                    "python -m pretrain.evaluate data where cifar10 shows the folder that is read")


def _class_names(path: Path) -> tuple[str, ...]:
    """Raises UserError where the file does not name ten classes."""
    try:
        names = path.read_text(encoding="utf-8").split() if path.suffix == ".txt" else read_pickle(path)["label_names"]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or \
                len(set(names)) != CLASSES or len(names) != CLASSES:
            raise ValueError(f"it does not name {CLASSES} classes")
    except Exception as error:  # damaged pickles raise nearly everything
        raise _unreadable(path, error) from error
    return tuple(names)


def _read_pickled(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images ``[N, 3072]`` and labels ``[N]`` of a pickle."""
    try:
        content = read_pickle(path)
        images, labels = content["data"], content["labels"]
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 2 or \
                images.shape[1] != _ROW or len(labels) != len(images) or \
                not all(isinstance(label, int) for label in labels):
            raise ValueError(f"it has no data of {_ROW} bytes an image, with a label each")
    except Exception as error:  # as above
        raise _unreadable(path, error) from error
    return np.asarray(images), _checked(np.array(labels, np.int64), path)


def _read_binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The same of rows of bytes: the label, then the pixels."""
    rows = np.fromfile(path, np.uint8)
    if not len(rows) or len(rows) % (1 + _ROW):
        raise UserError(f"{path} has {len(rows)} bytes, which is not a number of images of {1 + _ROW}: get the file "
                        "again")
    rows = rows.reshape(-1, 1 + _ROW)
    return np.ascontiguousarray(rows[:, 1:]), _checked(rows[:, 0].astype(np.int64), path)


def _checked(labels: np.ndarray, path: Path) -> np.ndarray:
    wrong = np.flatnonzero((labels < 0) | (labels >= CLASSES))
    if len(wrong):
        raise UserError(f"{path}: image {wrong[0]} has the class {labels[wrong[0]]}, and there are 0 to {CLASSES - 1}: "
                        "get the file again")
    return labels


def _unreadable(path: Path, error: Exception) -> UserError:
    reason = f"it has no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
    return UserError(f"{path} cannot be read ({reason or type(error).__name__}): get the file again")
