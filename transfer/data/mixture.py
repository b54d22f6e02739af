"""Several data sets, with different tasks, as one."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from harness.errors import UserError, closest
from harness.seeding import derive_seed, numpy_generator
from transfer.data.base import DATASETS, DataSet, Label, Sample, Split, open_data_set

if TYPE_CHECKING:
    from transfer.tasks.base import Task

_EXAMPLE = "'[{name: nyud, root: DIR}, {name: scenes, weight: 0.5}]'"
_KEYS = ("name", "weight", "tasks", "options")


@DATASETS.register("mixture")
class Mixture(DataSet):
    """Data sets that are trained on together, each drawn from as often as its weight says.

    A sample has the labels of its own data set, and none of the other tasks (Vandenhende 2022, section 6.4, heuristic
    5). Tasks of the same name are one task and must have the same classes; ``tasks`` renames them. Each data set's
    samples come in a shuffled order of its own, one pass after another, so that all are drawn equally often, also with
    a weight of 0.3. Splits other than ``train`` have all samples of all data sets that have the split.

    Args:
        sets: of each its name and options, a weight (1 by default), and new names of its tasks where they should have
            others: [{name: nyud, root: DIR, tasks: {semseg: indoor}}, {name: scenes, size: 128, weight: 0.5}]. Options
            may also stand together in options, as those must that are called as one of these three: {name: manifest,
            options: {file: FILE.csv, tasks: {semseg: {classes: [sky, ground]}}}}.
        weights: what a weight is. ``times``: how many times an epoch each training sample of the set is drawn (0.5:
            every other epoch). ``shares``: the set's part of the samples of an epoch, which is as long as all together.
    """

    holds = "those of several data sets"

    def __init__(self, sets: list[dict[str, Any]] | None = None,
                 weights: Literal["times", "shares"] = "times") -> None:
        if sets and not isinstance(sets, list | tuple):
            raise UserError(f"mixture: data.sets is {sets!r}: give a list, as --data.sets {_EXAMPLE}")
        if not sets:
            raise UserError(f"mixture: data.sets is not set: give the data sets to mix, as --data.sets {_EXAMPLE}")
        if weights not in ("times", "shares"):
            raise UserError(f"mixture: weights is '{weights}': choose times or shares")
        self.kind = weights
        self.sets: list[DataSet] = []
        self.weights: list[float] = []
        self.names: list[dict[str, str]] = []
        for number, entry in enumerate(sets, 1):
            try:
                self._add(entry)
            except UserError as error:
                name = f" ({entry['name']})" if isinstance(entry, dict) and "name" in entry else ""
                raise UserError(f"mixture: data set {number}{name}: {error}") from error
        have = {split for one in self.sets for split in one.splits}
        self.splits = tuple(split for split in ("train", "val", "test") if split in have)
        self._labels = self._merged()

    def _add(self, entry: Any) -> None:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise UserError(f"{entry!r} is not a data set: write each as {{name: nyud, root: DIR, weight: 1}}")
        weight = entry.get("weight", 1)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
            raise UserError(f"weight must be a number above 0, not {weight!r}")
        renamed = entry.get("tasks") or {}
        named = isinstance(renamed, dict) and all(isinstance(name, str) for name in renamed.values())
        options = _options(entry)
        lead = _own_tasks(entry["name"]) if "tasks" not in options else ""
        if not named:
            raise UserError(f"tasks is {renamed!r}: write new names as {{semseg: indoor}}{lead}")
        try:
            data = open_data_set(entry["name"], options, _KEYS)
        except UserError as error:
            raise UserError(f"{error}{lead}") from error
        if "train" not in data.splits:
            raise UserError("it has no split train")
        for task in renamed:
            if task not in data.labels:
                raise UserError(f"it has no task '{task}' to rename{closest(str(task), data.labels)}: it has "
                                f"{', '.join(data.labels)}")
        names = {task: renamed.get(task, task) for task in data.labels}
        if len(set(names.values())) < len(names):
            raise UserError("two of its tasks get the same name")
        self.sets.append(data)
        self.weights.append(float(weight))
        self.names.append(names)

    def _merged(self) -> dict[str, Label]:
        labels: dict[str, Label] = {}
        for number, (data, names) in enumerate(zip(self.sets, self.names, strict=True), 1):
            for task, name in names.items():
                label, before = data.labels[task], labels.get(name)
                label = replace(label, parents={names[parent]: place for parent, place in label.parents.items()})
                if before is None:
                    labels[name] = label
                elif (before.task, before.classes) != (label.task, label.classes):
                    raise UserError(f"mixture: task '{name}' of data set {number} has other classes than that of a "
                                    f"data set before it: give it another name with tasks: {{{task}: other}}")
        return labels

    @property
    def labels(self) -> Mapping[str, Label]:
        return self._labels

    def choose(self, names: Iterable[str] | None = None,
               options: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Task]:
        tasks = super().choose(names, options)
        self._chosen = []
        for data, renamed in zip(self.sets, self.names, strict=True):
            own = {task: name for task, name in renamed.items() if name in tasks}
            if own:
                data.choose(list(own), {task: (options or {}).get(name, {}) for task, name in own.items()})
            self._chosen.append(own)
        if not any(self._chosen):
            raise UserError("mixture: no data set has any of the tasks")
        return tasks

    def load(self, split: str) -> Split:
        tasks = self.tasks  # chooses, if nobody has
        used = [number for number, own in enumerate(self._chosen) if own and split in self.sets[number].splits]
        if not used:
            raise UserError(f"mixture: no data set has both split '{split}' and one of the tasks {', '.join(tasks)}")
        return _Mixed([self.sets[number].split(split) for number in used], [self._chosen[number] for number in used],
                      used, [self.weights[number] for number in used], self.kind)

    def remarks(self) -> list[str]:
        return [remark for data in self.sets for remark in data.remarks()]

    def fingerprint(self) -> str:
        parts = (f"{weight:g} of {data.fingerprint()} {sorted(names.items())}"
                 for weight, data, names in zip(self.weights, self.sets, self.names, strict=True))
        return f"mixture-{self.kind}({', '.join(parts)})"


def _options(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a data set that stand in its entry, beside the others or in ``options``.

    Raises:
        UserError: one is given twice.
    """
    flat = {key: value for key, value in entry.items() if key not in _KEYS}
    nested = entry.get("options") or {}
    if "options" in inspect.signature(DATASETS.get(entry["name"])).parameters:
        return flat | ({"options": nested} if nested else {})  # of subset, which has no others of an entry's names
    if not isinstance(nested, dict):
        raise UserError(f"options is {nested!r}: write the data set's own options as {{root: DIR}}")
    twice = set(flat) & set(nested)
    if twice:
        raise UserError(f"option '{min(twice)}' stands in its entry and in options: give it once")
    return flat | nested


def _own_tasks(name: str) -> str:
    """Where the option ``tasks`` of a data set belongs that has one."""
    if "tasks" not in inspect.signature(DATASETS.get(name)).parameters:
        return ""
    return (f" (an entry's tasks give new names; the data set's own stand in its options: {{name: {name}, options: "
            "{tasks: {semseg: {classes: [sky, ground]}}}})")


class _Mixed(Split):
    """The samples of several splits, one split after another.

    Args:
        splits: the splits.
        names: for each, what its tasks are called here.
        numbers: of their data sets.
        weights: of their data sets.
        kind: what a weight is.
    """

    def __init__(self, splits: Sequence[Split], names: Sequence[Mapping[str, str]], numbers: Sequence[int],
                 weights: Sequence[float], kind: str) -> None:
        self.splits, self.names, self.numbers = list(splits), list(names), list(numbers)
        lengths = [split.samples_per_epoch for split in self.splits]
        if kind == "times":
            self.counts = [max(1, round(weight * length)) for weight, length in zip(weights, lengths, strict=True)]
        else:
            ends = np.cumsum(weights) / math.fsum(weights) * sum(lengths)
            self.counts = [max(1, int(count)) for count in np.diff(np.round(ends), prepend=0)]
        self._ends = np.cumsum([len(split) for split in self.splits])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        number = int(np.searchsorted(self._ends, index, side="right"))
        names = self.names[number]
        sample = self.splits[number][index - int(self._ends[number]) + len(self.splits[number])]
        return {"image": sample["image"], "id": f"{self.numbers[number] + 1}/{sample['id']}",
                "targets": {names[task]: target for task, target in sample["targets"].items() if task in names}}

    @property
    def samples_per_epoch(self) -> int:
        """As the weights say."""
        return sum(self.counts)

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """Chance decides which data set is next, the data set which of its samples; see :meth:`Split.order`.

        An epoch takes up where the one before left off.
        """
        turns = np.repeat(np.arange(len(self.splits)), self.counts)
        turns = numpy_generator(seed, "mixture", epoch).permutation(turns)
        order = np.empty(len(turns), np.int64)
        for number, (split, count) in enumerate(zip(self.splits, self.counts, strict=True)):
            length, first = split.samples_per_epoch, epoch * count
            passes = range(first // length, (first + count - 1) // length + 1)
            own = derive_seed(seed, "mixture", self.numbers[number])
            drawn = np.concatenate([split.order(own, one) for one in passes])[first - passes[0] * length :][:count]
            order[turns == number] = int(self._ends[number]) - len(split) + drawn
        return order

    @property
    def sizes(self) -> dict[str, int]:
        """How many samples have a label of each task."""
        found: dict[str, int] = {}
        for split, names in zip(self.splits, self.names, strict=True):
            own = getattr(split, "sizes", {})
            for task, name in names.items():
                found[name] = found.get(name, 0) + own.get(task, len(split))
        return found
