"""The search for a tree as numbers: tasks are bits, groups are masks, locations are rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from harness.errors import UserError
from mtl_heads.trees import Tree

Partition = tuple[int, ...]
"""Groups of tasks as bit masks, ordered by their first task."""
Chain = tuple[Partition, ...]
"""One partition for each location, shallow to deep, each refining the one before."""


@dataclass(frozen=True)
class Problem:
    """What the search minimises, and what it must keep to.

    Args:
        dissimilarity: ``[D, N, N]``, of each pair of tasks at each location; the diagonal is not read.
        stage_costs: ``[D]``, what one more group costs at each location: parameters or multiply-adds.
        budget: most that Σ_d groups_d · stage_costs_d may be; none by default.
        counts: number of groups wanted at each location; any by default.

    Raises:
        UserError: shapes or values that make no problem, or that no tree fits.
    """

    dissimilarity: np.ndarray
    stage_costs: tuple[int, ...]
    budget: float = math.inf
    counts: tuple[int, ...] | None = None
    _rows: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        rows = np.array(self.dissimilarity, np.float64)
        if rows.ndim != 3 or rows.shape[1] != rows.shape[2] or 0 in rows.shape:
            raise UserError(f"task dissimilarity has shape {rows.shape}: it must be [locations, tasks, tasks]")
        if not np.isfinite(rows).all():
            raise UserError("task dissimilarity has values that are not finite: measure the affinity again")
        if not np.allclose(rows, rows.transpose(0, 2, 1)):
            raise UserError("task dissimilarity is not symmetric: measure the affinity again")
        if len(self.stage_costs) != len(rows) or min(self.stage_costs) < 0:
            raise UserError(f"{len(self.stage_costs)} stage costs for {len(rows)} locations: give one, not "
                            "negative, for each")
        rows[:, range(rows.shape[1]), range(rows.shape[1])] = 0.0
        object.__setattr__(self, "_rows", rows)
        if self.counts is not None:
            steps = [*self.counts, self.tasks]
            if len(self.counts) != self.locations or steps != sorted(steps) or steps[0] < 1:
                raise UserError(f"group counts {self.counts}: give {self.locations} numbers from 1 to "
                                f"{self.tasks} that never fall")
        least = self.resource(self.counts or (1,) * self.locations)
        if least > self.budget:
            raise UserError(f"no tree fits the budget: the smallest costs {least:g} and the budget is {self.budget:g}")

    @property
    def locations(self) -> int:
        """D."""
        return self._rows.shape[0]

    @property
    def tasks(self) -> int:
        """N."""
        return self._rows.shape[1]

    def row(self, location: int) -> np.ndarray:
        """Dissimilarity ``[N, N]`` at a location, with a zero diagonal."""
        return self._rows[location]

    def allowed(self, location: int, groups: int) -> bool:
        """Whether a tree may have so many groups at a location."""
        return self.counts is None or self.counts[location] == groups

    def resource(self, counts: Sequence[int]) -> int:
        """What groups of these numbers cost, shallow to deep."""
        return sum(count * cost for count, cost in zip(counts, self.stage_costs, strict=True))

    def least_above(self, location: int) -> int:
        """The least that the locations before ``location`` cost."""
        wanted = self.counts or (1,) * self.locations
        return sum(self.stage_costs[d] * wanted[d] for d in range(location))

    def clustering_cost(self, chain: Sequence[Partition]) -> float:
        """Σ_d of the mean over the groups at d of the largest dissimilarity inside the group.

        Source: Vandenhende 2022, section 4.3.2.
        """
        return math.fsum(
            math.fsum(diameter(self._rows[d], group) for group in partition) / len(partition)
            for d, partition in enumerate(chain)
        )


@dataclass(frozen=True)
class Found:
    """The best tree that a search saw.

    Args:
        chain: the tree.
        cost: its clustering cost.
        resource: its Σ_d groups_d · stage_costs_d.
    """

    chain: Chain
    cost: float
    resource: int

    def tree(self, tasks: Sequence[str]) -> Tree:
        """The tree with the names of the tasks."""
        return tree_of(self.chain, tasks)


def tree_of(chain: Chain, tasks: Sequence[str]) -> Tree:
    """A tree with the names of the tasks."""
    return tuple(tuple(tuple(tasks[i] for i in members(group)) for group in level) for level in chain)


def chain_of(tree: Tree, tasks: Sequence[str]) -> Chain:
    """The opposite of :func:`tree_of`."""
    bit = {task: 1 << i for i, task in enumerate(tasks)}
    return tuple(ordered(sum(bit[task] for task in group) for group in level) for level in tree)


def diameter(row: np.ndarray, group: int) -> float:
    """Largest dissimilarity inside a group; 0 for a single task."""
    inside = members(group)
    return float(row[np.ix_(inside, inside)].max())


@cache
def members(group: int) -> list[int]:
    """Tasks of a group, ascending."""
    return [i for i in range(group.bit_length()) if group >> i & 1]


def tasks_of(chain: Chain) -> list[list[list[int]]]:
    """The tree as lists of tasks: an order of trees, so that the choice among equals is always the same."""
    return [[members(group) for group in partition] for partition in chain]


def ordered(groups: Iterable[int]) -> Partition:
    """Groups in the order of their first tasks."""
    return tuple(sorted(groups, key=lambda group: group & -group))


def merged(partition: Partition, a: int, b: int) -> Partition:
    """``partition`` with groups number ``a`` < ``b`` as one, at the place of the first."""
    return (*partition[:a], partition[a] | partition[b], *partition[a + 1 : b], *partition[b + 1 :])
