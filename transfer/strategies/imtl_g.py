"""A direction with the same projection onto every gradient."""

from __future__ import annotations

import numpy as np

from transfer.strategies.registry import BALANCES
from transfer.strategies.solvers.gramian import equal_projections
from transfer.strategies.weighing import GramianSolver


@BALANCES.register("imtl_g")
class IMTLG(GramianSolver):
    """d = Σ_t α_t g_t with Σ_t α_t = 1 and dᵀu_t the same for all tasks, u_t = g_t/‖g_t‖.

    Liu et al. (2021), "Towards Impartial Multi-task Learning", equation 6. With U the unit gradients and
    U Uᵀy = 1, α_t is y_t/‖g_t‖ over the sum of these; weights may be negative. Where unit gradients depend on
    each other y is the least-squares solution of least norm. Scaling gradients changes the length of d, not its
    projections being equal. A gradient that is zero has weight 0.

    As weights may be negative, the common projection may be negative too: where gradients of unequal length conflict, d
    can be a direction along which every loss rises. ``config`` has the same direction with the sign that descends.
    """

    def solve(self, gramian: np.ndarray) -> np.ndarray:
        unit_weights, inverse_norms = equal_projections(gramian)
        weights = unit_weights * inverse_norms
        total = weights.sum()
        if abs(total) <= 1e-12 * np.abs(weights).sum():
            return np.zeros_like(weights)
        return weights / total
