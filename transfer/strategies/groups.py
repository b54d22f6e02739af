"""Tasks that act as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.errors import UserError, closest
from harness.seeding import numpy_generator


@dataclass
class ScheduleConfig:
    """Options of every schedule.

    Args:
        groups: tasks that act as one: a number of random groups of even size, or lists of names (who is in none
            stands alone); every task stands alone when none.
        track_distance: log the covered distance, and the shortest path, in the space of the shared parameters.
    """

    groups: int | list[list[str]] | None = None
    track_distance: bool = False


def task_groups(tasks: Sequence[str], groups: int | Sequence[Sequence[str]] | None, seed: int) -> dict[str, list[str]]:
    """The groups of tasks (Pascal 2021, section 4.2.4 and equation 4.8).

    A group's loss is the sum of its tasks' losses, and its number of update steps that of one task. As many groups
    as tasks change nothing; one group makes one step on the sum of all.

    Args:
        tasks: names of all tasks.
        groups: a number: the tasks are distributed equally and at random among as many groups, in the order of
            their first tasks; or the names in each, in the order that is wanted, after which come those in none.
        seed: of the random groups.

    Returns:
        The tasks of each group by its name: ``depth+normals``, or the task's own where it stands alone.

    Raises:
        UserError: a number of groups that is impossible, a name that is unknown or given twice, or an empty group.
    """
    tasks = list(tasks)
    if groups is None:
        chosen = [[task] for task in tasks]
    elif isinstance(groups, int):
        chosen = _random(tasks, groups, seed)
    else:
        chosen = _given(tasks, groups)
    named = {"+".join(group): group for group in chosen}
    if len(named) != len(chosen):
        raise UserError(f"schedule.groups: two groups of the tasks {', '.join(tasks)} have the same name when names "
                        "are joined by '+': rename a task that has a '+' in its name")
    return named


def _random(tasks: list[str], count: int, seed: int) -> list[list[str]]:
    if isinstance(count, bool) or not 1 <= count <= len(tasks):
        raise UserError(f"schedule.groups is {count}, and there are {len(tasks)} tasks: give a number from 1 to "
                        f"{len(tasks)}, or lists of names")
    order = numpy_generator(seed, "task groups").permutation(len(tasks)).tolist()
    # Dealt like cards, so that sizes differ by one at most.
    dealt = sorted(sorted(order[first::count]) for first in range(count))
    return [[tasks[index] for index in group] for group in dealt]


def _given(tasks: list[str], groups: Sequence[Sequence[str]]) -> list[list[str]]:
    seen: set[str] = set()
    for group in groups:
        if isinstance(group, str) or not group:
            raise UserError(f"schedule.groups has {group!r} for a group: give lists of names, such as "
                            f"[[{', '.join(tasks[:2])}]]")
        for task in group:
            if task not in tasks:
                raise UserError(f"schedule.groups names '{task}'{closest(task, tasks)}, and the tasks are "
                                f"{', '.join(tasks)}")
            if task in seen:
                raise UserError(f"schedule.groups names '{task}' twice: leave it in one group")
            seen.add(task)
    return [*map(list, groups), *([task] for task in tasks if task not in seen)]
