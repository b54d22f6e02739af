"""The mean of gradients that no task minds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from transfer.strategies.registry import BALANCES
from transfer.strategies.solvers.dual_cone import project_onto_dual_cone
from transfer.strategies.weighing import GramianSolver, check_range


@BALANCES.register("upgrad")
class UPGrad(GramianSolver):
    """The mean of the gradients, each projected onto the dual cone {d : g_tᵀd ≥ 0 for all t}.

    Quinton & Rey (2024), "Jacobian Descent For Multi-Objective Optimization", section 3. The T quadratic
    programmes are solved as non-negative least squares.

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
        return project_onto_dual_cone(gramian, np.eye(count) / count, self.reg_eps).sum(0)
