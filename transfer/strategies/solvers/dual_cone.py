"""Projection onto the directions that no task minds."""

from __future__ import annotations

import numpy as np

from transfer.strategies.solvers.gramian import coordinates


def project_onto_dual_cone(gramian: np.ndarray, preferences: np.ndarray, reg_eps: float) -> np.ndarray:
    """Weights of the projections of Jᵀu onto the dual cone {d : J d ≥ 0}, one for each row u.

    By its dual, the projection of Jᵀu is Jᵀv for the v ≥ u of least vᵀ G v (Quinton & Rey 2024,
    proposition 1). With v = u + λ this is min ‖Pᵀλ + Pᵀu‖² over λ ≥ 0, for points P with P Pᵀ = G: a
    non-negative least-squares problem (Lawson & Hanson 1974).

    Args:
        gramian: ``[T, T]``.
        preferences: ``[N, T]``, the vectors u.
        reg_eps: added to the diagonal of G over its trace, so that a Gramian that is singular up to
            rounding does not give huge weights that cancel.

    Returns:
        The v, ``[N, T]``.
    """
    from scipy.optimize import nnls

    trace = np.trace(gramian)
    if not trace > 0:
        return preferences.copy()
    points = coordinates(gramian / trace + reg_eps * np.eye(len(gramian))).T
    iterations = 100 * len(gramian)
    return np.stack([u + nnls(points, -points @ u, maxiter=iterations)[0] for u in preferences])
