"""The search for a tree, against the enumeration of all trees."""

from __future__ import annotations

import math
from collections import Counter
from functools import cache

import numpy as np
import pytest

from harness.errors import UserError
from mtl_heads.trees import group_counts, make_tree
from transfer.branching.beam import beam_search
from transfer.branching.counting import count_trees, count_trees_of, random_chain, stirling
from transfer.branching.exact import exact_search
from transfer.branching.problem import Problem, chain_of, members
from transfer.branching.search import search


def partitions(things):
    """All partitions of a list, by putting its first element into each group of those of the rest."""
    if not things:
        yield []
        return
    for rest in partitions(things[1:]):
        yield [[things[0]], *rest]
        for i, group in enumerate(rest):
            yield [*rest[:i], [things[0], *group], *rest[i + 1 :]]


@cache
def all_trees(tasks, locations):
    """All trees as lists of partitions, shallow to deep, by splitting each group again at the next location."""

    def below(level, left):
        if left == 0:
            yield []
            return
        choices = [[]]
        for group in level:
            choices = [[*done, *split] for done in choices for split in partitions(group)]
        for choice in choices:
            for rest in below(choice, left - 1):
                yield [choice, *rest]

    return list(below([list(range(tasks))], locations))


def cost_by_loops(dissimilarity, tree):
    total = 0.0
    for location, level in enumerate(tree):
        largest = [max((dissimilarity[location][s][t] for s in group for t in group if s != t), default=0.0)
                   for group in level]
        total += sum(largest) / len(level)
    return total


def random_affinity(generator, locations, tasks, kind):
    if kind == "uniform":
        values = generator.random((locations, tasks, tasks)) * 1.4
    elif kind == "ties":
        values = generator.integers(0, 3, (locations, tasks, tasks)).astype(float)
    else:
        points = generator.normal(size=(tasks, 3))
        values = np.stack([1 - np.corrcoef(points + 0.5 * generator.normal(size=(tasks, 3)))
                           for _ in range(locations)])
    values = values.reshape(locations, tasks, tasks)
    return np.triu(values, 1) + np.triu(values, 1).transpose(0, 2, 1)


def check_chain(found, problem):
    """A tree that fits, and whose figures are its own."""
    counts = tuple(len(level) for level in found.chain)
    assert found.resource == problem.resource(counts) <= problem.budget
    assert all(problem.allowed(d, count) for d, count in enumerate(counts))
    names = [f"t{i}" for i in range(problem.tasks)]
    tree = found.tree(names)
    assert make_tree(tree, names, problem.locations) == tree and group_counts(tree) == counts
    assert chain_of(tree, names) == found.chain
    assert found.cost == pytest.approx(problem.clustering_cost(found.chain))


CASES = [(1, 3), (2, 1), (2, 4), (3, 3), (3, 5), (4, 2), (4, 3), (5, 2)]


@pytest.mark.parametrize("kind", ["uniform", "points", "ties"])
@pytest.mark.parametrize(("tasks", "locations"), CASES)
def test_exact_search_is_the_minimum_over_all_trees(tasks, locations, kind):
    generator = np.random.default_rng(tasks * 10 + locations)
    trees = all_trees(tasks, locations)
    assert len(trees) == count_trees(tasks, locations)
    for share in (0.3, 0.55, 0.8, math.inf):
        values = random_affinity(generator, locations, tasks, kind)
        costs = tuple(int(cost) for cost in generator.integers(0, 20, locations))
        budget = max(sum(costs), share * tasks * sum(costs)) if math.isfinite(share) else math.inf
        problem = Problem(values, costs, budget)
        reference = [(cost_by_loops(values, tree), tree) for tree in trees
                     if sum(len(level) * cost for level, cost in zip(tree, costs, strict=True)) <= budget]
        least = min(cost for cost, _ in reference)
        found = exact_search(problem)
        check_chain(found, problem)
        assert found.cost == pytest.approx(least, abs=1e-9)
        beam = beam_search(problem)
        check_chain(beam, problem)
        assert beam.cost >= least - 1e-9
        bounded = exact_search(problem, beam.cost)
        assert bounded.cost == pytest.approx(least, abs=1e-9)
        if least > 1e-6:
            assert exact_search(problem, least / 2) is None

        counts = tuple(sorted(int(n) for n in generator.integers(1, tasks + 1, locations)))
        fixed = Problem(values, costs, counts=counts)
        of_size = [cost_by_loops(values, tree) for tree in trees if tuple(map(len, tree)) == counts]
        assert len(of_size) == count_trees_of(tasks, counts)
        for result in (exact_search(fixed), beam_search(fixed)):
            check_chain(result, fixed)
            assert result.cost >= min(of_size) - 1e-9
        assert exact_search(fixed).cost == pytest.approx(min(of_size), abs=1e-9)


def test_clustering_cost_by_loops():
    generator = np.random.default_rng(0)
    values = random_affinity(generator, 3, 4, "uniform")
    problem = Problem(values, (1, 1, 1))
    for tree in all_trees(4, 3):
        chain = chain_of([[[str(i) for i in group] for group in level] for level in tree], "0123")
        assert problem.clustering_cost(chain) == pytest.approx(cost_by_loops(values, tree))


def test_the_beam_is_close_to_the_best_and_permutations_do_not_matter():
    gaps = []
    for seed in range(6):
        generator = np.random.default_rng(seed)
        values = random_affinity(generator, 4, 6, ("uniform", "points")[seed % 2])
        problem = Problem(values, (1, 2, 4, 8), 0.5 * 6 * 15)
        found = search(problem)
        assert found.exact and found.trees == 44590 and found.gap >= 0
        gaps.append(found.gap / found.best.cost)
        order = generator.permutation(6)
        other = search(Problem(values[:, order][:, :, order], (1, 2, 4, 8), 0.5 * 6 * 15))
        assert other.best.cost == pytest.approx(found.best.cost)
        groups = [sorted(sorted(order[members(group)].tolist()) for group in level) for level in other.best.chain]
        assert groups == [sorted(members(group) for group in level) for level in found.best.chain]
        assert search(problem, exact_trees=44589).best == found.beam
        assert search(problem, exact_trees=44589).gap is None
    assert np.mean(gaps) < 0.02


def test_a_larger_budget_is_never_worse_and_everything_apart_costs_nothing():
    values = random_affinity(np.random.default_rng(3), 4, 6, "points")
    costs = [exact_search(Problem(values, (1, 2, 4, 8), share * 6 * 15)).cost for share in np.linspace(1 / 6, 1, 8)]
    assert costs == sorted(costs, reverse=True) and costs[-1] == 0
    together = Problem(values, (1, 2, 4, 8), 15)
    assert [len(level) for level in exact_search(together).chain] == [1, 1, 1, 1]


def test_planted_groups_are_found():
    """Tasks in two camps that part at the third location, one of them again at the last."""
    values = np.zeros((4, 8, 8))
    camp = np.arange(8) // 4
    values[2:][:, camp[:, None] != camp] = 0.9
    half = np.arange(8) // 2
    values[3][(camp[:, None] == camp) & (half[:, None] != half) & (camp == 0)[:, None]] = 0.8
    # just enough for 1 + 1 + 2 + 3 groups
    found = search(Problem(values, (1, 2, 4, 8), 1 + 2 + 2 * 4 + 3 * 8))
    assert [[members(group) for group in level] for level in found.best.chain] == [
        [[0, 1, 2, 3, 4, 5, 6, 7]], [[0, 1, 2, 3, 4, 5, 6, 7]], [[0, 1, 2, 3], [4, 5, 6, 7]],
        [[0, 1], [2, 3], [4, 5, 6, 7]],
    ]  # fmt: skip
    assert found.best.cost == 0 == found.gap


def test_forty_tasks():
    generator = np.random.default_rng(0)
    problem = Problem(random_affinity(generator, 5, 40, "points"), (1, 2, 4, 8, 16), 0.3 * 40 * 31)
    found = search(problem, width=8)
    check_chain(found.best, problem)
    assert not found.exact and found.trees > 10**40 and found.seconds < 60
    drawn = [problem.clustering_cost(random_chain(40, [len(level) for level in found.best.chain], generator))
             for _ in range(50)]
    assert found.best.cost < min(drawn)


@pytest.mark.slow
def test_forty_tasks_with_any_budget_in_under_a_minute():
    for kind in ("points", "uniform"):
        for share in (0.1, 0.4, 0.7, 0.95):
            values = random_affinity(np.random.default_rng(1), 5, 40, kind)
            found = search(Problem(values, (1, 2, 4, 8, 16), share * 40 * 31))
            assert found.seconds < 60


def test_numbers_of_trees():
    assert [stirling(5, k) for k in range(7)] == [0, 1, 15, 25, 10, 1, 0]
    assert [count_trees(n, 1) for n in range(1, 7)] == [1, 2, 5, 15, 52, 203]  # Bell numbers
    assert [count_trees(n, 4) for n in range(1, 9)] == [1, 5, 35, 315, 3455, 44590, 660665, 11035095]
    for tasks, locations in CASES:
        found = Counter(tuple(map(len, tree)) for tree in all_trees(tasks, locations))
        assert all(count_trees_of(tasks, counts) == number for counts, number in found.items())


def test_random_trees_are_drawn_evenly():
    counts, draws = (1, 2, 3), 6000
    generator = np.random.default_rng(0)
    found = Counter(random_chain(5, counts, generator) for _ in range(draws))
    number = count_trees_of(5, counts)
    assert len(found) == number == 75
    expected = draws / number
    chi_squared = sum((count - expected) ** 2 / expected for count in found.values())
    assert chi_squared < 74 + 4 * math.sqrt(2 * 74)
    for chain in found:
        names = list("abcde")
        tree = [[[names[i] for i in members(group)] for group in level] for level in chain]
        assert chain_of(make_tree(tree, names, 3), names) == chain


@pytest.mark.parametrize(("arguments", "message"), [
    ((np.zeros((2, 3, 4)), (1, 1)), r"shape \(2, 3, 4\): it must be \[locations, tasks, tasks\]"),
    ((np.full((1, 2, 2), np.nan), (1,)), "not finite"),
    ((np.arange(4.0).reshape(1, 2, 2), (1,)), "not symmetric"),
    ((np.zeros((2, 2, 2)), (1,)), "1 stage costs for 2 locations"),
    ((np.zeros((2, 2, 2)), (1, 2), 2.5), "no tree fits the budget: the smallest costs 3 and the budget is 2.5"),
    ((np.zeros((2, 2, 2)), (1, 2), 9, (2, 1)), r"group counts \(2, 1\): give 2 numbers from 1 to 2 that never fall"),
    ((np.zeros((2, 2, 2)), (1, 2), 4, (1, 2)), "the smallest costs 5 and the budget is 4"),
])  # fmt: skip
def test_wrong_problems_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        Problem(*arguments)
