"""A good tree where there are too many to see them all."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from transfer.branching.problem import Chain, Found, Partition, Problem, members, merged, tasks_of

STRATA = 16
"""Into how many classes of spent resources the states of a step are divided; each has its own beam."""


class _State(NamedTuple):
    """Deeper locations as they were chosen, and the partition that the location at hand would have.

    Args:
        partition: that partition.
        resource: what the deeper locations spend.
        cost: the deeper locations' clustering cost.
        chain: the deeper locations' partitions, shallow to deep.
    """

    partition: Partition
    resource: int
    cost: float
    chain: Chain


class _Offer(NamedTuple):
    """A state, its clustering cost with the location at hand, and the estimate that ranks it."""

    state: _State
    cost: float
    estimate: float


def beam_search(problem: Problem, width: int = 16) -> Found:
    """A tree with a small clustering cost that fits the budget.

    From the deepest location up: at each, groups are merged two by two, from what the deeper
    location has down to one group. Of all partitions with the same number of groups the best
    ``width`` go on, separately for each class of resources spent so far: what is spent deep down is
    missing above, so cost alone is a poor judge. They are ranked by the clustering cost up to this
    location plus what these groups would cost at the shallower ones, where they stay together.

    Args:
        problem: the problem.
        width: states that go on in each class.
    """
    states = [_State(tuple(1 << i for i in range(problem.tasks)), 0, 0.0, ())]
    for location in range(problem.locations - 1, -1, -1):
        shallower = sum((problem.row(d) for d in range(location)), np.zeros_like(problem.row(0)))
        rows = np.stack([problem.row(location), shallower])
        price, room = problem.stage_costs[location], problem.budget - problem.least_above(location)
        fewest = problem.counts[location] if problem.counts else 1
        pools: list[dict[tuple[Partition, int], _Offer]] = [{} for _ in range(problem.tasks + 1)]
        for state in states:
            own, later = _linkage(rows, state.partition).diagonal(axis1=1, axis2=2).mean(1).tolist()
            _add(pools[len(state.partition)], _Offer(state, state.cost + own, state.cost + own + later))
        states = []
        for groups in range(problem.tasks, fewest - 1, -1):
            for state, cost, _ in _best(pools[groups], width, room):
                spent = state.resource + price * groups
                if spent <= room and problem.allowed(location, groups):
                    states.append(_State(state.partition, spent, cost, (state.partition, *state.chain)))
                if groups > fewest:
                    for offer in _merges(rows, state, width):
                        _add(pools[groups - 1], offer)
    best = min(states, key=lambda state: (round(state.cost, 9), state.resource, tasks_of(state.chain)))
    return Found(best.chain, problem.clustering_cost(best.chain), best.resource)


def _add(pool: dict[tuple[Partition, int], _Offer], offer: _Offer) -> None:
    """Put a state into a pool, unless one with the same partition and resources is there for less."""
    key = (offer.state.partition, offer.state.resource)
    if key not in pool or offer.estimate < pool[key].estimate:
        pool[key] = offer


def _best(pool: dict[tuple[Partition, int], _Offer], width: int, room: float) -> list[_Offer]:
    """The ``width`` best states of each class of resources."""
    offers = [offer for offer in pool.values() if offer.state.resource <= room]
    offers.sort(key=lambda offer: (offer.estimate, offer.state.resource, offer.state.partition))
    largest = max((offer.state.resource for offer in offers), default=0) or 1
    taken = dict.fromkeys(range(STRATA + 1), 0)
    kept = []
    for offer in offers:
        stratum = STRATA * offer.state.resource // largest
        if taken[stratum] < width:
            taken[stratum] += 1
            kept.append(offer)
    return kept


def _merges(rows: np.ndarray, state: _State, width: int) -> list[_Offer]:
    """The state with two of its groups merged, in the ``width`` ways that look best."""
    largest = _linkage(rows, state.partition)
    own = largest.diagonal(axis1=1, axis2=2)
    together = np.maximum(largest, np.maximum(own[:, :, None], own[:, None, :]))
    a, b = np.triu_indices(own.shape[1], 1)
    changes = (together - own[:, :, None] - own[:, None, :])[:, a, b]
    chosen = np.argsort(changes.sum(0), kind="stable")[:width]
    means = (own.sum(1, keepdims=True) + changes[:, chosen]) / (own.shape[1] - 1)
    return [
        _Offer(state._replace(partition=merged(state.partition, i, j)), state.cost + now, state.cost + now + later)
        for i, j, now, later in zip(a[chosen].tolist(), b[chosen].tolist(), *means.tolist(), strict=True)
    ]


def _linkage(rows: np.ndarray, partition: Partition) -> np.ndarray:
    """Of each matrix, the largest dissimilarity between the tasks of two groups; within one on the diagonal."""
    order = [task for group in partition for task in members(group)]
    starts = np.cumsum([0, *(group.bit_count() for group in partition[:-1])])
    sorted_rows = rows[:, order][:, :, order]
    return np.maximum.reduceat(np.maximum.reduceat(sorted_rows, starts, 1), starts, 2)
