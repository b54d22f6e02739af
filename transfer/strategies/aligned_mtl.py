"""Gradients rotated and scaled as little as makes them orthogonal and equally long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from harness.errors import UserError
from transfer.strategies.registry import BALANCES
from transfer.strategies.solvers.gramian import independent_coordinates
from transfer.strategies.weighing import GramianSolver

#: σ from the singular values, which fall.
SCALES = {
    "min": lambda sizes: sizes[-1],
    "median": lambda sizes: sizes[len(sizes) // 2],  # the lower one of two
    "rmse": lambda sizes: np.sqrt(np.mean(sizes**2)),
}


@BALANCES.register("aligned_mtl")
class AlignedMTL(GramianSolver):
    """The mean of the gradients' nearest system with condition number 1.

    With G = V Λ Vᵀ the Gramian, weights are σ V Λ^(−1/2) Vᵀ 1/T over the non-zero eigenvalues (Senushkin et al.
    2023, "Independent Component Alignment for Multi-Task Learning", algorithm 1). How many these are is told by the
    gradients' directions: a gradient that is much smaller than the others counts, one that only rounding tells from
    them does not. Gradients that are all zero have weights 1/T.

    Args:
        tasks: names of the tasks.
        scale_mode: σ² is the least (min), median or mean (rmse) of the non-zero eigenvalues.

    Raises:
        UserError: there is no such scale_mode.
    """

    def __init__(self, tasks: Sequence[str], scale_mode: Literal["min", "median", "rmse"] = "min") -> None:
        super().__init__(tasks)
        if scale_mode not in SCALES:
            raise UserError(f"balance.scale_mode is {scale_mode!r}: set it to {', '.join(SCALES)}")
        self.scale_mode = scale_mode

    def solve(self, gramian: np.ndarray) -> np.ndarray:
        equal = np.full(len(gramian), 1.0 / len(gramian))
        points = independent_coordinates(gramian)
        if not points.shape[1]:
            return equal
        # G = U S² Uᵀ: from the points, as squares of singular values that differ much would be lost in G.
        vectors, sizes, _ = np.linalg.svd(points, full_matrices=False)
        return SCALES[self.scale_mode](sizes) * (vectors @ ((vectors.T @ equal) / sizes))
