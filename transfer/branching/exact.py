"""The best of all trees."""

from __future__ import annotations

import math
from functools import cache, partial
from itertools import combinations

from transfer.branching.problem import Found, Partition, Problem, diameter, merged, tasks_of

# A way to get to a partition: its cost in resources, its clustering cost, and the partitions chosen
# so far, shallow to deep, as nested pairs.
_Entry = tuple[int, float, tuple]


def exact_search(problem: Problem, bound: float = math.inf) -> Found | None:
    """The tree with the least clustering cost among all that fit the budget.

    Trees that agree on some partition go on from it in the same ways, so they are not enumerated one
    by one: from the deepest location up, each partition keeps the pairs (resources, clustering cost)
    that no other way to it beats in both. Partitions are visited from fine to coarse and hand what they have
    to every partition that merges two of their groups; in the end each has received it from
    all that refine it. Nothing is left out but what cannot be the best, so this is the minimum over all trees.

    Args:
        problem: the problem.
        bound: clustering cost of a tree that is known; what costs more is left out.

    Returns:
        The best tree; of several, the smallest. None when nothing is within the bound.
    """
    diameters = [cache(partial(diameter, problem.row(location))) for location in range(problem.locations)]
    bound += 1e-9  # sums in another order differ in the last digits
    finest: Partition = tuple(1 << i for i in range(problem.tasks))
    ways: dict[Partition, list[_Entry]] = {finest: [(0, 0.0, ())]}
    for location in range(problem.locations - 1, -1, -1):
        price, room = problem.stage_costs[location], problem.budget - problem.least_above(location)
        fewest = problem.counts[location] if problem.counts else 1
        levels: list[dict[Partition, list[_Entry]]] = [{} for _ in range(problem.tasks + 1)]
        for partition, entries in ways.items():
            levels[len(partition)][partition] = entries
        ways = {}
        for groups in range(problem.tasks, fewest - 1, -1):
            for partition, arrived in levels[groups].items():
                arrived = _unbeaten(arrived)
                if problem.allowed(location, groups):
                    own = math.fsum(map(diameters[location], partition)) / groups
                    kept = [(resource + price * groups, cost + own, (partition, chain))
                            for resource, cost, chain in arrived
                            if resource + price * groups <= room and cost + own <= bound]
                    if kept:
                        ways[partition] = kept
                if groups > fewest:
                    for a, b in combinations(range(groups), 2):
                        levels[groups - 1].setdefault(merged(partition, a, b), []).extend(arrived)
    best = min((entry for entries in ways.values() for entry in entries),
               key=lambda entry: (round(entry[1], 9), entry[0], tasks_of(_unnested(entry[2]))), default=None)
    if best is None:
        return None
    chain = _unnested(best[2])
    return Found(chain, problem.clustering_cost(chain), best[0])


def _unbeaten(entries: list[_Entry]) -> list[_Entry]:
    """Those that no other is as good as or better than, in resources and in clustering cost."""
    if len(entries) == 1:
        return entries
    kept, least = [], math.inf
    for entry in sorted(entries, key=lambda entry: entry[:2]):
        if entry[1] < least:
            kept.append(entry)
            least = entry[1]
    return kept


def _unnested(chain: tuple) -> tuple[Partition, ...]:
    partitions = []
    while chain:
        partition, chain = chain
        partitions.append(partition)
    return tuple(partitions)
