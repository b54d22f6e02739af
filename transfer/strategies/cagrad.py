"""Near the mean gradient, best for the worst task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from transfer.strategies.registry import BALANCES
from transfer.strategies.solvers.conflict_averse import conflict_averse
from transfer.strategies.weighing import GramianSolver, check_range


@BALANCES.register("cagrad")
class CAGrad(GramianSolver):
    """The d that maximises min_t ∇L_tᵀd over ‖d − g₀‖ ≤ c‖g₀‖, with g₀ the mean of the gradients.

    Liu et al. (2021), "Conflict-Averse Gradient Descent for Multi-task Learning", equation 1 and algorithm 1.
    For c = 0 it is g₀; for c ≥ 1 it approaches MGDA's direction. Programs differ in the length: some divide d by
    1 + c², which is 0.8 of it at c = 0.5, or multiply it by the number of tasks, as for a sum in the place of
    the mean. How the problem is solved: :func:`~transfer.strategies.solvers.conflict_averse.conflict_averse`.

    Args:
        tasks: names of the tasks.
        c: how far d may go from g₀, relative to its length.
        rescale: none leaves d as it is; 1+c2 divides it by 1 + c²; T multiplies it by the number of tasks.

    Raises:
        UserError: c is negative.
    """

    def __init__(self, tasks: Sequence[str], c: float = 0.5, rescale: Literal["none", "1+c2", "T"] = "none") -> None:
        super().__init__(tasks)
        check_range("c", c)
        self.c = c
        self.rescale = rescale

    def solve(self, gramian: np.ndarray) -> np.ndarray:
        weights = conflict_averse(gramian, self.c)
        if self.rescale == "1+c2":
            return weights / (1.0 + self.c**2)
        return weights * len(weights) if self.rescale == "T" else weights
