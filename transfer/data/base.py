"""What a labelled data set is."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

import numpy as np

from harness.about import About
from harness.errors import UserError, closest
from harness.registry import Registry
from harness.sampling import shuffled

if TYPE_CHECKING:
    from transfer.tasks.base import Task

# what tells of data sets waits seconds for torch if any file here imports it: tasks are imported where they are made
DATASETS: Registry[type[DataSet]] = Registry("data set", "transfer.data", besides=("loading", "other_split"))


class Sample(TypedDict):
    """One image and what is known about it; tasks without a label are absent."""

    image: np.ndarray
    """uint8 ``[H, W, 3]``, or ``[H, W, 1]`` for a grey one."""
    id: str
    targets: dict[str, np.ndarray]
    """Dense: ``[H, W]`` or ``[H, W, C]``; of the image: a scalar or ``[A]``."""


class Samples(TypedDict):
    """Several samples at once, in new arrays; a task that none of them has a label of may be absent."""

    images: np.ndarray
    """uint8 ``[B, H, W, 3]``, or ``[B, H, W, 1]``."""
    ids: list[str]
    targets: dict[str, np.ndarray]
    """Each ``[B, …]``, with the task's "no label" where a sample has none."""


@dataclass(frozen=True)
class Label:
    """A kind of label that a data set has.

    Args:
        task: name of the task in the registry.
        classes: names of the classes or attributes; empty for continuous quantities.
        parents: where the data set has coarser classes too, by the name of their task the index of the one that each
            of these classes belongs to.
    """

    task: str
    classes: tuple[str, ...] = ()
    parents: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


class DataSet(ABC):
    """All splits of one data set; the keyword parameters of a subclass's constructor are its options.

    A constructor checks the folder once and says what is missing; it never downloads.

    Attributes:
        splits: names of the splits that it has.
        about: where a published data set comes from.
        holds: its tasks, in a few words.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")
    about: ClassVar[About | None] = None
    holds: ClassVar[str] = ""

    @property
    @abstractmethod
    def labels(self) -> Mapping[str, Label]:
        """Every label that the data set has, by the name of its task here."""

    @abstractmethod
    def load(self, split: str) -> Split:
        """The split, with the targets of :attr:`tasks`; called by :meth:`split`."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A text that changes whenever the samples do: options, versions, state of the folder."""

    def remarks(self) -> list[str]:
        """What a user should know about the folder: what it lacks of the data set as published."""
        return []

    @property
    def tasks(self) -> dict[str, Task]:
        """The chosen tasks by name, in order; all with default options unless :meth:`choose` was called."""
        if not hasattr(self, "_tasks"):
            self.choose()
        return self._tasks

    def choose(
        self, names: Iterable[str] | None = None, options: Mapping[str, Mapping[str, Any]] | None = None
    ) -> dict[str, Task]:
        """Restrict the data set to some tasks; only their targets are read from then on.

        Args:
            names: tasks, in the order wanted; all by default.
            options: options of tasks by task name, for example ``{"normals": {"loss": "cosine"}}``.

        Raises:
            UserError: a task that the data set has not, twice the same task, or an unknown option.
        """
        from transfer.tasks.base import build_task

        labels, options = self.labels, options or {}
        chosen = list(labels) if names is None else list(names)
        if not chosen:
            raise UserError(f"no task chosen: choose among {', '.join(labels)}")
        for name in [*chosen, *options]:
            if name not in labels:
                raise UserError(f"the data set has no labels for task '{name}'{closest(name, labels)}: "
                                f"it has {', '.join(labels)}")
        if len(set(chosen)) < len(chosen):
            raise UserError(f"tasks {', '.join(chosen)}: one is named twice")
        self._tasks = {
            name: build_task(labels[name].task, name, labels[name].classes, options.get(name))
            for name in chosen
        }
        return self._tasks

    def split(self, name: str) -> Split:
        """The samples of a split, with targets of the chosen tasks only.

        Raises:
            UserError: there is no such split.
        """
        if name not in self.splits:
            raise UserError(f"the data set has no split '{name}'{closest(name, self.splits)}: "
                            f"it has {', '.join(self.splits)}")
        return self.load(name)


def open_data_set(name: str, options: Mapping[str, Any], besides: Sequence[str] = ()) -> DataSet:
    """A data set with options that no configuration has checked.

    Args:
        name: of the data set.
        options: of its constructor.
        besides: names that may stand beside them, for the message.

    Raises:
        UserError: no such data set or option, or an option of another type than it takes.
    """
    kind = DATASETS.get(name)
    known = list(inspect.signature(kind).parameters)
    for option in options:
        if option not in known:
            raise UserError(f"data set '{name}' has no option '{option}'{closest(str(option), known)}: it has "
                            f"{', '.join([*besides, *known])}")
    try:
        return kind(**options)
    except (TypeError, ValueError, AttributeError) as error:
        given = ", ".join(f"{option}: {value!r}" for option, value in options.items())
        raise UserError(f"data set '{name}' cannot take the options {given[:200]} ({error})") from error


def unlabelled(split: Split, name: str, tasks: Iterable[str]) -> str:
    """What a user should know of tasks of which no sample of a split has a label; nothing where all have some.

    Args:
        split: the samples; those that cannot tell without being read are believed.
        name: of the split.
        tasks: to look for.
    """
    sizes = getattr(split, "sizes", None)
    bare = [task for task in tasks if sizes is not None and not sizes.get(task)]
    effect = "nothing is learnt of" if name == "train" else "there will be no figure for"
    whom = "it" if len(bare) == 1 else "them"
    return f"{', '.join(bare)}: no label in the {name} split: {effect} {whom}" if bare else ""


class Split(Sequence[Sample]):
    """The samples of one split; cheap to pickle, since workers receive it."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Sample: ...

    def batch(self, indices: Sequence[int]) -> Samples | None:
        """Several samples at once, where the split can do that faster than one by one; else None.

        It is asked where nothing is to be done to single samples: in evaluation at the images' own size,
        and in training without augmentation. Small images are several times as fast this way.
        """
        return None

    @property
    def samples_per_epoch(self) -> int:
        """How many samples a pass of training has."""
        return len(self)

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """Which samples a pass of training has, in which order; all of them, shuffled, unless a subclass differs.

        Args:
            seed: of the run.
            epoch: of the pass, from 0.

        Returns:
            int64 ``[samples_per_epoch]``, indices of samples.
        """
        return shuffled(len(self), seed, epoch)
