"""How many trees there are, and trees drawn evenly among them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from transfer.branching.problem import Chain, ordered


@cache
def stirling(things: int, groups: int) -> int:
    """Number of partitions of so many things into so many groups (Stirling numbers of the second kind)."""
    if groups == 0 or things < groups:
        return int(things == groups)
    return stirling(things - 1, groups - 1) + groups * stirling(things - 1, groups)


@cache
def count_trees(tasks: int, locations: int) -> int:
    """Number of trees: chains of partitions of the tasks, one for each location, each refining the one before."""
    if locations == 0:
        return 1
    return sum(stirling(tasks, groups) * count_trees(groups, locations - 1) for groups in range(1, tasks + 1))


def count_trees_of(tasks: int, counts: Sequence[int]) -> int:
    """Number of trees with the given numbers of groups, shallow to deep."""
    product = 1
    for groups in reversed(counts):
        product *= stirling(tasks, groups)
        tasks = groups
    return product


def random_chain(tasks: int, counts: Sequence[int], generator: np.random.Generator) -> Chain:
    """A tree with the given numbers of groups, each such tree with the same probability.

    The deepest partition is drawn among all of its number of groups, then the groups themselves are
    partitioned: how many ways there are to go on does not depend on what was drawn.
    """
    chain, groups = [], [1 << i for i in range(tasks)]
    for count in reversed(counts):
        labels = _random_partition(len(groups), count, generator)
        groups = [sum(group for group, label in zip(groups, labels, strict=True) if label == wanted)
                  for wanted in range(count)]
        chain.append(ordered(groups))
    return tuple(reversed(chain))


def _random_partition(things: int, groups: int, generator: np.random.Generator) -> list[int]:
    """A group for each thing, every partition into ``groups`` groups with the same probability."""
    if things == 0:
        return []
    alone, all_ = stirling(things - 1, groups - 1), stirling(things, groups)
    if generator.random() * all_ < alone:  # the last thing has a group of its own
        return [*_random_partition(things - 1, groups - 1, generator), groups - 1]
    rest = _random_partition(things - 1, groups, generator)
    return [*rest, int(generator.integers(groups))]
