"""The tree with the least clustering cost within a budget: exact where that is feasible, by beam above."""

from __future__ import annotations

import time
from dataclasses import dataclass

from transfer.branching.beam import beam_search
from transfer.branching.counting import count_trees, count_trees_of
from transfer.branching.exact import exact_search
from transfer.branching.problem import Found, Problem

EXACT_TREES = 2_000_000_000
EXACT_TASKS = 10
"""The search over all trees keeps every partition of the tasks; those of eleven tasks are too many."""


@dataclass(frozen=True)
class Search:
    """What a search found, and how.

    Args:
        best: the tree.
        beam: what the beam search found; the same where it alone ran.
        exact: whether the tree is the best of all.
        trees: how many trees there are, those over budget included.
        seconds: how long it took.
    """

    best: Found
    beam: Found
    exact: bool
    trees: int
    seconds: float

    @property
    def gap(self) -> float | None:
        """How much more the beam's tree costs than the best of all; None where that is not known."""
        return max(0.0, self.beam.cost - self.best.cost) if self.exact else None


def search(problem: Problem, *, exact_trees: int = EXACT_TREES, width: int = 16) -> Search:
    """Search by beam, and over all trees too unless there are more than ``exact_trees``, or more
    than ``EXACT_TASKS`` tasks.

    Args:
        problem: the problem.
        exact_trees: largest number of trees that are searched completely.
        width: of the beam.
    """
    start = time.perf_counter()
    trees = (count_trees(problem.tasks, problem.locations) if problem.counts is None
             else count_trees_of(problem.tasks, problem.counts))
    beam = beam_search(problem, width)
    few = trees <= exact_trees and problem.tasks <= EXACT_TASKS
    best = exact_search(problem, beam.cost) if few else None
    return Search(best or beam, beam, best is not None, trees, time.perf_counter() - start)
