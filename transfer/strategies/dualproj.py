"""The nearest direction to the mean gradient that no task minds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from transfer.strategies.registry import BALANCES
from transfer.strategies.solvers.dual_cone import project_onto_dual_cone
from transfer.strategies.weighing import GramianSolver, check_range


@BALANCES.register("dualproj")
class DualProj(GramianSolver):
    """The mean of the gradients, projected onto the dual cone {d : g_tᵀd ≥ 0 for all t}.

    Lopez-Paz & Ranzato (2017), "Gradient Episodic Memory for Continual Learning", equation 11; its name is that
    of Quinton & Rey (2024). The quadratic programme is solved as non-negative least squares.

    Args:
        tasks: names of the tasks.
        reg_eps: added to the diagonal of the Gramian, relative to its trace, against huge weights that cancel
            where gradients nearly depend on each other; 0 for the exact projection.

    Raises:
        UserError: reg_eps is negative.
    """

    def __init__(self, tasks: Sequence[str], reg_eps: float = 1e-4) -> None:
        super().__init__(tasks)
        check_range("reg_eps", reg_eps)
        self.reg_eps = reg_eps

    def solve(self, gramian: np.ndarray) -> np.ndarray:
        count = len(gramian)
        return project_onto_dual_cone(gramian, np.full((1, count), 1.0 / count), self.reg_eps)[0]
