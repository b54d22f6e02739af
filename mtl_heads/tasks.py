"""Which tasks a network has, and how many channels each of them wants."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from harness.errors import UserError, closest

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_+ -]*")


@dataclass(frozen=True)
class Tasks:
    """The tasks of a network, in the order of the configuration.

    Args:
        dense: output channels of the tasks that predict a map.
        image: output channels of the tasks that predict one vector per image.
        auxiliary: output channels of the dense tasks that are trained only to help the others.

    Raises:
        UserError: there is no task, a name is in two sets or cannot be used, or a number of
            channels is not a positive integer.
    """

    dense: Mapping[str, int]
    image: Mapping[str, int]
    auxiliary: Mapping[str, int]

    def __post_init__(self) -> None:
        sets = {"dense": self.dense, "image": self.image, "auxiliary": self.auxiliary}
        home: dict[str, str] = {}
        for kind, tasks in sets.items():
            if not isinstance(tasks, Mapping):
                raise UserError(f"{kind}: expected {{task: output channels}}, got {tasks!r}")
            for task, channels in tasks.items():
                if not isinstance(task, str) or not _NAME.fullmatch(task):
                    raise UserError(
                        f"{kind} task {task!r}: use letters, digits, '_', '-', '+' and spaces in the name"
                    )
                if isinstance(channels, bool) or not isinstance(channels, int) or channels < 1:
                    raise UserError(
                        f"{kind} task '{task}' has {channels!r} output channels: give a positive integer"
                    )
                if task in home:
                    raise UserError(
                        f"task '{task}' is given as {home[task]} and as {kind}: leave it in one of them"
                    )
                home[task] = kind
        if not self.dense and not self.image:
            raise UserError("the network has no task: give at least one in dense or image")

    @property
    def main(self) -> list[str]:
        """Names of the tasks that are predicted: dense ones, then image ones."""
        return [*self.dense, *self.image]

    @property
    def all(self) -> list[str]:
        """Names of all tasks that have a loss: main ones, then auxiliary ones."""
        return [*self.main, *self.auxiliary]

    def require_one(self, architecture: str, instead: str) -> None:
        """Refuse several tasks.

        Args:
            architecture: name of the one that takes a single task.
            instead: name of one that takes several.

        Raises:
            UserError: there are several.
        """
        if len(self.all) != 1:
            raise UserError(
                f"architecture '{architecture}' takes exactly one task, not {len(self.all)} ({', '.join(self.all)}): "
                f"build one network for each, or choose '{instead}'"
            )

    def select(self, wanted: Iterable[str] | None) -> list[str]:
        """The wanted tasks in the network's order; ``None`` means all, auxiliary ones included.

        Raises:
            UserError: a wanted task is not one of this network's.
        """
        if wanted is None:
            return self.all
        wanted = {wanted} if isinstance(wanted, str) else set(wanted)
        for task in wanted:
            if task not in self.all:
                raise UserError(
                    f"the network has no task '{task}'{closest(task, self.all)}: it has {', '.join(self.all)}"
                )
        return [task for task in self.all if task in wanted]
