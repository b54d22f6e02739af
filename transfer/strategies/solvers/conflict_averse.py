"""The direction near the mean gradient that is best for the worst task."""

from __future__ import annotations

import numpy as np

from transfer.strategies.solvers.gramian import coordinates
from transfer.strategies.solvers.min_norm import least_norm_of_points


def conflict_averse(gramian: np.ndarray, c: float) -> np.ndarray:
    """Weights of the d that maximises min_t g_tᵀd over ‖d − g₀‖ ≤ c‖g₀‖, g₀ the mean of the gradients.

    The dual (Liu et al. 2021, section 3) is min over the simplex of g_wᵀg₀ + s‖g_w‖, with g_w = Σ w_t g_t
    and s = c‖g₀‖, and d = g₀ + s g_w/‖g_w‖. As s‖g_w‖ is the least of (‖g_w‖²/μ + s²μ)/2 over μ > 0, where
    μ = ‖g_w‖/s, the dual is for a given μ the least norm ‖g_w + μg₀‖: a problem that is solved exactly.
    What remains is convex in μ, and a root is found where its derivative vanishes. At the solution
    d = g₀ + g_w/μ.

    When g_w vanishes, so that the tasks are at a Pareto stationary point, many d are optimal: this is the
    closest one to g₀, which is orthogonal to all gradients in the sum.

    Args:
        gramian: ``[T, T]``.
        c: radius, relative to ‖g₀‖.

    Returns:
        ``[T]``.
    """
    from scipy.optimize import brentq

    count = len(gramian)
    mean = np.full(count, 1.0 / count)
    points = coordinates(gramian)
    size = np.abs(points).max(initial=0.0)
    if c == 0.0 or size == 0.0:
        return mean
    points = points / size
    center = points.mean(0)
    radius = c * np.linalg.norm(center)
    if radius == 0.0:
        return mean

    def solve(mu: float) -> np.ndarray:
        return least_norm_of_points(points + mu * center)

    def derivative(mu: float) -> float:  # its sign: ‖g_w‖ falls below s μ where μ has grown too large
        return radius * mu - np.linalg.norm(solve(mu) @ points)

    smallest, largest = 1e-6, 2.0 * np.linalg.norm(points, axis=1).max() / radius
    if derivative(smallest) >= 0.0:
        return mean + _away_from(points, solve(smallest), center)
    mu = brentq(derivative, smallest, largest, rtol=1e-12, xtol=1e-14)
    return mean + solve(mu) / mu


def _away_from(points: np.ndarray, weights: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Weights, on the points that have some, of minus the projection of the center onto their span."""
    taking_part = weights > 1e-9
    found = np.zeros(len(points))
    found[taking_part] = np.linalg.lstsq(points[taking_part].T, -center, rcond=1e-7)[0]
    return found
