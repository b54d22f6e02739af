"""A share of another data set's training samples, or of their labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import UserError, closest
from harness.seeding import numpy_generator
from transfer.data.base import DATASETS, DataSet, Label, Sample, Samples, Split, open_data_set

if TYPE_CHECKING:
    from transfer.tasks.base import Task


@DATASETS.register("subset")
class Subset(DataSet):
    """Another data set with a share of its training samples, drawn once; the other splits are whole.

    Args:
        of: name of the data set.
        share: of the training samples, above 0 and at most 1.
        seed: of the draw.
        options: options of the data set.
        turns: tasks that share the drawn samples out among them: each sample keeps the labels of one of them, in turns,
            and of no other task; those of a task that is not trained are left out. By default samples keep all labels.
    """

    holds = "those of another data set"

    def __init__(self, of: str = "scenes", share: float = 0.2, seed: int = 0,
                 options: dict[str, Any] | None = None, turns: list[str] | None = None) -> None:
        if of == "subset":
            raise UserError("subset: a share of a share is a smaller share: name the data set itself in of")
        if not 0 < share <= 1:
            raise UserError(f"subset: share is {share}: it must be above 0 and at most 1")
        try:
            self.whole = open_data_set(of, options or {})
        except UserError as error:
            raise UserError(f"subset: {error}") from error
        self.splits = self.whole.splits
        self.share, self.seed, self.turns = share, seed, tuple(turns or ())
        for task in self.turns:
            if task not in self.labels:
                raise UserError(f"subset: turns: {of} has no task '{task}'{closest(task, self.labels)}: it has "
                                f"{', '.join(self.labels)}")
        if len(set(self.turns)) < len(self.turns):
            raise UserError(f"subset: turns {', '.join(self.turns)}: one is named twice")

    @property
    def labels(self) -> Mapping[str, Label]:
        return self.whole.labels

    def choose(self, names: Iterable[str] | None = None,
               options: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Task]:
        tasks = self.whole.choose(names, options)
        for task in tasks if self.turns else ():
            if task not in self.turns:
                raise UserError(f"subset: task '{task}' has no turn, so no sample would have a label of it: add it to "
                                f"data.turns ({', '.join(self.turns)}), or leave it out of tasks")
        self._tasks = tasks
        return self._tasks

    def load(self, split: str) -> Split:
        samples = self.whole.split(split)
        if split != "train":
            return samples
        count = max(1, round(self.share * len(samples)))
        chosen = np.sort(numpy_generator(self.seed, "subset").choice(len(samples), count, replace=False))
        if not self.turns:
            return _Chosen(samples, chosen)
        if count < len(self.turns):
            raise UserError(f"subset: {count} training samples cannot take turns among {len(self.turns)} tasks: raise "
                            "data.share")
        tasks = np.resize(np.array(self.turns), count)
        trained = np.isin(tasks, list(self.tasks))
        return _OneLabelEach(samples, chosen[trained], tasks[trained])

    def fingerprint(self) -> str:
        turns = f"-{'+'.join(self.turns)}" if self.turns else ""
        return f"{self.whole.fingerprint()}-share{self.share:g}-{self.seed}{turns}"


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


class _OneLabelEach(_Chosen):
    """Some samples of a split, each with the label of one task."""

    def __init__(self, samples: Split, chosen: np.ndarray, tasks: np.ndarray) -> None:
        super().__init__(samples, chosen)
        self.tasks = tasks

    def __getitem__(self, index: int) -> Sample:
        sample, task = super().__getitem__(index), self.tasks[index]
        return {**sample, "targets": {name: target for name, target in sample["targets"].items() if name == task}}

    def batch(self, indices: Sequence[int]) -> Samples | None:
        return None  # would hold every sample's label of every task

    @property
    def sizes(self) -> dict[str, int]:
        """How many samples have a turn of each task; they may still lack its label."""
        return {str(name): int(count) for name, count in zip(*np.unique(self.tasks, return_counts=True), strict=True)}
