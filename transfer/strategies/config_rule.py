"""A conflict-free direction, as long as the gradients agree on it."""

from __future__ import annotations

import numpy as np

from transfer.strategies.registry import BALANCES
from transfer.strategies.solvers.gramian import equal_projections
from transfer.strategies.weighing import GramianSolver


@BALANCES.register("config")
class ConFIG(GramianSolver):
    """d = (Σ_t g_tᵀv) v, where the unit vector v has the same cosine with all gradients.

    Liu et al. (2025), "ConFIG: Towards Conflict-free Training of Physics Informed Neural Networks", equations
    2 and 3: v = U⁺1 / ‖U⁺1‖ with U the unit gradients and U⁺ its pseudo-inverse. As U⁺ = Uᵀ(U Uᵀ)⁺, v is a
    weighted sum of gradients, and inner products are all that is needed: with (U Uᵀ) y = 1, U⁺1 = Uᵀy, and
    its length is √(yᵀU Uᵀy). The better gradients agree, the longer d.
    """

    def solve(self, gramian: np.ndarray) -> np.ndarray:
        unit_weights, inverse_norms = equal_projections(gramian)
        direction = unit_weights * inverse_norms
        products = gramian @ direction
        square = direction @ products
        return direction * (products.sum() / square) if square > 0 else np.zeros_like(direction)
