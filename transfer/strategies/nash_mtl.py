"""The step on which bargaining tasks agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from transfer.strategies.registry import BALANCES
from transfer.strategies.solvers.power import solve_power
from transfer.strategies.weighing import GramianSolver, check_range


@BALANCES.register("nash_mtl")
class NashMTL(GramianSolver):
    """d = Σ_t α_t g_t with α > 0 and G α = 1/α, where G holds the gradients' inner products.

    It is the direction that maximises Σ_t log(g_tᵀd) in a ball, the tasks' Nash bargaining solution (Navon et
    al. 2022, "Multi-Task Learning as a Bargaining Game", claim 3.1). The equation is the stationarity of a
    convex function and is solved by Newton's method; the authors solve a sequence of convex programmes.

    Scaling a gradient by s divides its α by s and leaves the direction as it is. By the equation ‖d‖ = √T,
    whatever the size of the gradients; the authors' program cuts it at ``max_norm``, so that with their value ‖d‖
    is 1 and the learning rate alone says how far a step goes.

    Args:
        tasks: names of the tasks.
        max_norm: greatest length of d; 0 for none, which gives α as in the equation.

    Raises:
        UserError: max_norm is negative.
    """

    def __init__(self, tasks: Sequence[str], max_norm: float = 1.0) -> None:
        super().__init__(tasks)
        check_range("max_norm", max_norm)
        self.max_norm = max_norm

    def solve(self, gramian: np.ndarray) -> np.ndarray:
        weights = solve_power(gramian, 1.0)
        length = np.sqrt(max(weights @ gramian @ weights, 0.0))
        return weights * (self.max_norm / length) if 0 < self.max_norm < length else weights
