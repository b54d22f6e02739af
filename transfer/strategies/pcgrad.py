"""Gradients without their conflicting parts."""

from __future__ import annotations

import numpy as np

from transfer.strategies.registry import BALANCES
from transfer.strategies.solvers.gramian import inverse_or_zero
from transfer.strategies.solvers.surgery import operate
from transfer.strategies.weighing import GramianSolver


@BALANCES.register("pcgrad")
class PCGrad(GramianSolver):
    """Σ_i g̃_i, each g̃_i projected onto the normal plane of every g_j that it conflicts with.

    g̃_i starts as g_i; for the other tasks j in random order, where g̃_iᵀg_j < 0, it becomes
    g̃_i − (g̃_iᵀg_j / ‖g_j‖²) g_j (Yu et al. 2020, "Gradient Surgery for Multi-Task Learning", algorithm 1).
    The direction is the sum of the g̃_i, not their mean: gradients without conflict are summed as they are.
    """

    def solve(self, gramian: np.ndarray) -> np.ndarray:
        inverse = inverse_or_zero(np.diagonal(gramian))

        def remove(partners: np.ndarray, products: np.ndarray, squares: np.ndarray) -> np.ndarray:
            return -np.minimum(products, 0.0) * inverse[partners]

        return operate(gramian, remove)
