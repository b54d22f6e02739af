"""A share of another data set's training samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from harness.errors import UserError
from harness.seeding import numpy_generator
from transfer.data.base import DATASETS, DataSet, Label, Sample, Samples, Split
from transfer.tasks.base import Task


@DATASETS.register("subset")
class Subset(DataSet):
    """Another data set with a share of its training samples, drawn once; the other splits are whole.

    Args:
        of: name of the data set.
        share: of the training samples, above 0 and at most 1.
        seed: of the draw.
        options: options of the data set.
    """

    def __init__(self, of: str = "scenes", share: float = 0.2, seed: int = 0,
                 options: dict[str, Any] | None = None) -> None:
        if of == "subset":
            raise UserError("subset: a share of a share is a smaller share: name the data set itself in of")
        if not 0 < share <= 1:
            raise UserError(f"subset: share is {share}: it must be above 0 and at most 1")
        try:
            self.whole: DataSet = DATASETS.get(of)(**(options or {}))
        except TypeError as error:
            raise UserError(f"subset: data set '{of}' does not take these options ({error})") from error
        self.splits = self.whole.splits
        self.share, self.seed = share, seed

    @property
    def labels(self) -> Mapping[str, Label]:
        return self.whole.labels

    def choose(self, names: Iterable[str] | None = None,
               options: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Task]:
        self._tasks = self.whole.choose(names, options)
        return self._tasks

    def load(self, split: str) -> Split:
        samples = self.whole.split(split)
        if split != "train":
            return samples
        count = max(1, round(self.share * len(samples)))
        chosen = numpy_generator(self.seed, "subset").choice(len(samples), count, replace=False)
        return _Chosen(samples, np.sort(chosen))

    def fingerprint(self) -> str:
        return f"{self.whole.fingerprint()}-share{self.share:g}-{self.seed}"


class _Chosen(Split):
    """Some samples of a split."""

    def __init__(self, samples: Split, chosen: np.ndarray) -> None:
        self.samples, self.chosen = samples, chosen

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[int(self.chosen[index])]

    def batch(self, indices: Sequence[int]) -> Samples | None:
        return self.samples.batch(self.chosen[indices].tolist())
