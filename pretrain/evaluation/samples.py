"""Features and labels of a split as arrays, checked before anything is learnt from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harness.errors import UserError
from pretrain.evaluation.features import Features
from pretrain.evaluation.labelled import LABELLED, Labelled, LabelledImages

CHUNK_BYTES = 64 << 20
"""Of what is read from a file of features at once."""


@dataclass(frozen=True)
class Samples:
    """One split.

    Args:
        split: its name.
        images: the images.
        features: float32 ``[N, C]``, mapped from the disk where it is kept there.
        labels: classes, int64 ``[N]``, or attributes, int8 ``[N, A]``.
    """

    split: str
    images: LabelledImages
    features: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


def read_samples(features: Features, data: Labelled, kind: str) -> tuple[Samples, Samples]:
    """The split that is learnt from and the one that is measured.

    Args:
        features: of a backbone.
        data: with labels of this kind.
        kind: ``class`` or ``attributes``.

    Raises:
        UserError: a split is empty, features are not finite, or the splits do not share their classes.
    """
    learn, test = (_read(features, data, split, kind) for split in (data.learn, data.test))
    _check_classes(learn, test, data.names[kind], kind, LABELLED.name_of(type(data)))
    return learn, test


def _read(features: Features, data: Labelled, split: str, kind: str) -> Samples:
    images = data.split(split)
    if not len(images):
        raise UserError(f"the split '{split}' of {LABELLED.name_of(type(data))} has no images: choose another, or put "
                        "images into it")
    vectors = features.pooled(images, data.resize, data.crop)
    for start, rows in chunks(vectors):
        with np.errstate(over="ignore", invalid="ignore"):
            finite = np.isfinite(rows.sum(1))
        if not finite.all():
            name = images.name(start + int(finite.argmin()))
            raise UserError(f"{features.subject.label}: its features of {name} are not finite: the weights are "
                            "damaged, or --features.precision has too small a range for them (try float32)")
    return Samples(split, images, vectors, images.classes() if kind == "class" else images.attributes())


def _check_classes(learn: Samples, test: Samples, names: Sequence[str], kind: str, data: str) -> None:
    known, asked = (np.bincount(part.labels, minlength=len(names)) if kind == "class" else (part.labels == 1).sum(0)
                    for part in (learn, test))
    unknown = np.flatnonzero((asked > 0) & (known == 0))
    if len(unknown):
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        what = "classes" if kind == "class" else "attributes"
        raise UserError(f"{data}: '{names[unknown[0]]}'{more} of the {len(names)} {what} is in the split "
                        f"'{test.split}' and not in '{learn.split}', where nothing can learn it: give both splits the "
                        f"same {what}")


def chunks(rows: np.ndarray, chunk_bytes: int = CHUNK_BYTES) -> Iterator[tuple[int, np.ndarray]]:
    """Views of consecutive rows that together are a whole array, each with the number of its first row."""
    step = max(1, chunk_bytes // max(1, rows[:1].nbytes))
    for start in range(0, len(rows), step):
        yield start, rows[start : start + step]


def unit_rows(rows: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """A copy with rows of length 1, float32; rows of zeros stay."""
    found = torch.from_numpy(np.array(rows, np.float32)).to(device)
    return found.div_(torch.linalg.vector_norm(found, dim=1, keepdim=True).clamp_min_(1e-12))


def accuracies(predicted: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """Share of each class's images that is predicted right, float64 ``[classes]``; NaN for a class without images."""
    count = np.bincount(truth, minlength=classes)
    right = np.bincount(truth[predicted == truth], minlength=classes)
    return np.divide(right, count, out=np.full(classes, np.nan), where=count > 0)
