"""The point of least norm in the convex hull of gradients."""

from __future__ import annotations

import numpy as np

from transfer.strategies.solvers.gramian import coordinates


def least_norm(gramian: np.ndarray) -> np.ndarray:
    """Exact solution of min ‖Σ_t α_t g_t‖² over α_t ≥ 0, Σ_t α_t = 1 (Sener & Koltun 2018, equation 3).

    Args:
        gramian: ``[T, T]``, inner products of the g.

    Returns:
        α, ``[T]``.
    """
    count = len(gramian)
    if count == 2:
        first = two_tasks(gramian[0, 0], gramian[0, 1], gramian[1, 1])
        return np.array([first, 1.0 - first])
    return least_norm_of_points(coordinates(gramian))


def least_norm_of_points(points: np.ndarray) -> np.ndarray:
    """The same for points ``[T, r]`` themselves.

    Without the constraint on the sum, min ‖Pᵀx‖² + (1 − Σx)² over x ≥ 0 is a non-negative least-squares
    problem. For a given sum s the first term is s² times the least squared norm, whatever s is: so x is
    a multiple of α, and never zero.
    """
    from scipy.optimize import nnls

    count = len(points)
    size = np.abs(points).max(initial=0.0)
    if size == 0.0:
        return np.full(count, 1.0 / count)
    system = np.vstack([points.T / size, np.ones(count)])
    target = np.zeros(len(system))
    target[-1] = 1.0
    solution, _ = nnls(system, target, maxiter=100 * count)
    return solution / solution.sum()


def two_tasks(aa: float, ab: float, bb: float) -> float:
    """Weight γ in [0, 1] of a in the shortest γa + (1 − γ)b (Sener & Koltun 2018, equation 4).

    Args:
        aa: ‖a‖².
        ab: aᵀb.
        bb: ‖b‖².
    """
    if ab >= aa or ab >= bb:  # algorithm 1: the end that is the shorter one
        return float(aa < bb) if aa != bb else 0.5
    return (bb - ab) / (aa + bb - 2.0 * ab)


def frank_wolfe(gramian: np.ndarray, iterations: int, tolerance: float) -> np.ndarray:
    """Algorithm 2 of Sener & Koltun (2018): towards the least norm, one vertex and line search at a time.

    Args:
        gramian: ``[T, T]``.
        iterations: at most.
        tolerance: the step γ at which it stops.
    """
    count = len(gramian)
    if count == 2:
        return least_norm(gramian)
    alpha = np.full(count, 1.0 / count)
    for _ in range(iterations):
        products = gramian @ alpha
        best = int(np.argmin(products))
        gamma = two_tasks(gramian[best, best], products[best], alpha @ products)
        alpha *= 1.0 - gamma
        alpha[best] += gamma
        if gamma < tolerance:
            break
    return alpha
