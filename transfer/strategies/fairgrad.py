"""A fair share of progress for every task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from transfer.strategies.registry import BALANCES
from transfer.strategies.solvers.power import solve_power
from transfer.strategies.weighing import GramianSolver, check_range


@BALANCES.register("fairgrad")
class FairGrad(GramianSolver):
    """d = Σ_t w_t g_t with w > 0 and G w = w^(−1/α), where G holds the gradients' inner products.

    It maximises the α-fair utility of the tasks' progress, Σ_t (g_tᵀd)^(1−α)/(1−α), in a ball (Ban & Ji 2024,
    "Fair Resource Allocation in Multi-Task Learning", equation 4): α = 0 is the mean of the gradients, 1
    proportional fairness (Nash-MTL's equation), 2 least potential delay, and large values tend to max-min
    fairness. The equation is the stationarity of a convex function and is solved by Newton's method.

    Args:
        tasks: names of the tasks.
        alpha: α, how much the tasks that gain least count.

    Raises:
        UserError: alpha is negative.
    """

    def __init__(self, tasks: Sequence[str], alpha: float = 1.0) -> None:
        super().__init__(tasks)
        check_range("alpha", alpha)
        self.alpha = alpha

    def solve(self, gramian: np.ndarray) -> np.ndarray:
        if self.alpha == 0:
            return np.full(len(gramian), 1.0 / len(gramian))
        return solve_power(gramian, 1.0 / self.alpha)
