"""Trees of tasks: which tasks share a stage of the encoder, from the image down to the heads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.errors import UserError, closest

Group = tuple[str, ...]
Tree = tuple[tuple[Group, ...], ...]
"""For each location (stage of the encoder), from shallow to deep, the groups of tasks that share it."""


def make_tree(groupings: Iterable[Iterable[Iterable[str]]], tasks: Sequence[str], locations: int) -> Tree:
    """Check a tree and bring it into its one form: groups and tasks in the order of ``tasks``.

    Args:
        groupings: for each location, shallow to deep, the groups of tasks that share it.
        tasks: all tasks of the network.
        locations: how many there are.

    Raises:
        UserError: the number of locations is another, a location is no partition of the tasks, or
            tasks that were apart are together again at a deeper location.
    """
    order = {task: i for i, task in enumerate(tasks)}
    levels = [[_names(group) for group in _sequence(level)] for level in _sequence(groupings)]
    if len(levels) != locations:
        raise UserError(
            f"the tree has groupings for {len(levels)} locations and the encoder has {locations} stages: "
            "give one grouping for each stage, shallow to deep"
        )
    tree: list[tuple[Group, ...]] = []
    for number, level in enumerate(levels):
        where = f"the tree, at location {number} of 0 to {locations - 1},"
        named = [task for group in level for task in group]
        for task in named:
            if task not in order:
                raise UserError(
                    f"{where} has a task '{task}' that the network has not{closest(task, order)}: "
                    f"group {', '.join(tasks)}"
                )
            if named.count(task) > 1:
                raise UserError(f"{where} has task '{task}' {named.count(task)} times: name it once")
        lacking = [task for task in tasks if task not in named]
        if lacking:
            raise UserError(f"{where} leaves out {', '.join(lacking)}: put each task in one group")
        if not all(level):
            raise UserError(f"{where} has an empty group: leave it out")
        groups = sorted((tuple(sorted(group, key=order.get)) for group in level), key=lambda g: order[g[0]])
        if tree:
            home = {task: i for i, group in enumerate(tree[-1]) for task in group}
            for group in groups:
                apart = next((task for task in group if home[task] != home[group[0]]), None)
                if apart is not None:
                    raise UserError(
                        f"{where} has '{group[0]}' and '{apart}' together, which the location before has apart: "
                        "branches only split"
                    )
        tree.append(tuple(groups))
    return tuple(tree)


def shared_tree(tasks: Sequence[str], locations: int) -> Tree:
    """All tasks share everything: the multi-task baseline."""
    return ((tuple(tasks),),) * locations


def split_tree(tasks: Sequence[str], locations: int, first: int = 0) -> Tree:
    """All tasks share the locations before ``first``, and none after: single-task networks when it is 0."""
    apart = tuple((task,) for task in tasks)
    return tuple(apart if location >= first else (tuple(tasks),) for location in range(locations))


def group_counts(tree: Sequence[Sequence[Sequence[str]]]) -> tuple[int, ...]:
    """Number of groups at each location: what the size of a branched network depends on."""
    return tuple(len(level) for level in tree)


def _sequence(value: object) -> list:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise UserError(f"the tree must be a list (locations) of lists (groups) of lists (tasks), found {value!r}")
    return list(value)


def _names(group: object) -> list[str]:
    names = _sequence(group)
    for name in names:
        if not isinstance(name, str):
            raise UserError(f"the tree has {name!r} where the name of a task belongs: give lists of names")
    return names
