"""Several sources as one."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from harness.config import Selection, load, option_defaults, selection
from harness.errors import UserError, closest
from harness.seeding import derive_seed, numpy_generator
from pretrain.sources.base import SOURCES, Source

_EXAMPLE = "'[{name: folder, root: DIR, weight: 2}, {name: coco, root: DIR}]'"


@dataclass
class _Entry:
    """One of the sources of a mixture."""

    data: Selection = selection(SOURCES, "folder")


@SOURCES.register("mixture")
class Mixture(Source):
    """Several sources, each drawn from as often as its weight says.

    Each source's images come in its own shuffled order, one pass after another; an epoch takes up where
    the one before left off. So all images of a source are drawn equally often, also with a weight of 0.3,
    and what an epoch has depends on the seed and the epoch's number alone.

    Args:
        sources: of each its name and options, as --data.name and --data.* of a single one, and a weight
            (1 by default): [{name: folder, root: DIR, weight: 2}, {name: coco, root: DIR}].
        weights: what a weight is. ``times``: how many times an epoch each image of the source is drawn
            (0.5: every other epoch). ``shares``: the source's part of the samples of an epoch, which is
            as long as all sources together.
    """

    def __init__(self, sources: list[dict[str, Any]] | None = None,
                 weights: Literal["times", "shares"] = "times") -> None:
        if not sources:
            raise UserError(f"data.sources is not set: give the sources to mix, as --data.sources {_EXAMPLE}")
        self.sources: list[Source] = []
        factors = []
        for number, entry in enumerate(sources, 1):
            with _named(number, entry):
                chosen, weight = _read_entry(entry)
                self.sources.append(chosen.build())
                factors.append(weight)
        lengths = [source.samples_per_epoch for source in self.sources]
        self.counts = _times(lengths, factors) if weights == "times" else _shares(lengths, factors)
        self._labels: np.ndarray | None = None
        self._ends = np.cumsum([len(source) for source in self.sources], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def encoded(self, number: int) -> Path | bytes | None:
        """The image as its source stores it."""
        source, within = self._find(number)
        return self.sources[source].encoded(within)

    def open(self, number: int) -> Image.Image | np.ndarray:
        """Read an image; see :meth:`Source.open`."""
        source, within = self._find(number)
        return self.sources[source].open(within)

    def name(self, number: int) -> str:
        """The source's number, and the image's name there."""
        source, within = self._find(number)
        return f"source {source + 1}, {self.sources[source].name(within)}"

    def label(self, number: int) -> int | None:
        """The image's class, where all sources know theirs; classes of different sources are different."""
        labels = self.labels()
        return None if labels is None else int(labels[number])

    def labels(self) -> np.ndarray | None:
        """:meth:`label` of all images."""
        if self._labels is None:
            parts = [source.labels() for source in self.sources]
            if any(part is None for part in parts):
                return None
            first, shifted = 0, []
            for part in parts:
                shifted.append(np.where(part < 0, part, part + first))
                first += int(part.max(initial=-1)) + 1
            self._labels = np.concatenate(shifted)
        return self._labels

    def fingerprint(self) -> str:
        """Of all sources, and how many images an epoch has of each."""
        parts = [f"{count} of {source.fingerprint()}" for count, source in zip(self.counts, self.sources, strict=True)]
        return f"mixture({', '.join(parts)})"

    @property
    def samples_per_epoch(self) -> int:
        """The sources' counts together."""
        return sum(self.counts)

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """Chance decides which source is next, the source which of its images; see :meth:`Source.order`."""
        turns = np.repeat(np.arange(len(self.sources)), self.counts)
        turns = numpy_generator(seed, "mixture", epoch).permutation(turns)
        order = np.empty(len(turns), dtype=np.int64)
        for number, (source, count) in enumerate(zip(self.sources, self.counts, strict=True)):
            start = self._ends[number] - len(source)
            order[turns == number] = start + _drawn(source, count, derive_seed(seed, "mixture", number), epoch)
        return order

    def remarks(self) -> list[str]:
        """Of all sources."""
        return [remark for source in self.sources for remark in source.remarks()]

    def _find(self, number: int) -> tuple[int, int]:
        if not 0 <= number < len(self):
            raise IndexError(number)
        source = int(np.searchsorted(self._ends, number, side="right"))
        return source, number - int(self._ends[source]) + len(self.sources[source])


def _drawn(source: Source, count: int, seed: int, epoch: int) -> np.ndarray:
    """Of the passes over a source, one after another, the ``count`` images that are an epoch's."""
    length, first = source.samples_per_epoch, epoch * count
    passes = range(first // length, (first + count - 1) // length + 1)
    stream = np.concatenate([source.order(seed, number) for number in passes])
    return stream[first - passes[0] * length :][:count]


def _times(lengths: list[int], weights: list[float]) -> list[int]:
    """Samples of an epoch where a weight is how many times an image is drawn."""
    return [max(1, round(weight * length)) for weight, length in zip(weights, lengths, strict=True)]


def _shares(lengths: list[int], weights: list[float]) -> list[int]:
    """Samples of an epoch where a weight is a share of it; together as many as the sources have."""
    ends = np.cumsum(weights) / math.fsum(weights) * sum(lengths)
    return [max(1, int(count)) for count in np.diff(np.round(ends), prepend=0)]


def _read_entry(entry: Any) -> tuple[Selection, float]:
    """The source that an entry chooses, and its weight; options are checked as those of the command line."""
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise UserError(f"{entry!r} is not a source: write each as {{name: folder, root: DIR, weight: 1}}")
    weight = entry.get("weight", 1)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
        raise UserError(f"weight must be a number above 0, not {weight!r}")
    known = ["name", "weight", *option_defaults(SOURCES.get(entry["name"]))]
    for name in entry:
        if name not in known:
            raise UserError(f"unknown option {name}{closest(str(name), known)}: it has {', '.join(known)}")
    given = [f"--data.{name}={value if isinstance(value, str) else json.dumps(value)}"
             for name, value in entry.items() if name != "weight"]
    return load(_Entry, given).data, float(weight)


@contextmanager
def _named(number: int, entry: Any) -> Iterator[None]:
    """Say which of the sources a mistake is in."""
    try:
        yield
    except UserError as error:
        name = f" ({entry['name']})" if isinstance(entry, dict) and "name" in entry else ""
        raise UserError(f"data.sources, source {number}{name}: {error}") from error
