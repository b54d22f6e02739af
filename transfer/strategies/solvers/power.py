"""G w = w^(−p): the stationary points of bargaining and of α-fairness."""

from __future__ import annotations

import numpy as np


def solve_power(gramian: np.ndarray, power: float, iterations: int = 100) -> np.ndarray:
    """The positive w with (G w)_t = w_t^(−p), by Newton's method.

    It is where the gradient of the strictly convex ½ wᵀG w − Σ_t w_t^(1−p)/(1−p) (for p = 1:
    ½ wᵀG w − Σ_t log w_t) vanishes, so steps that are cut until this has gone down lead to it from any
    start.

    Args:
        gramian: ``[T, T]``, positive semi-definite.
        power: p > 0.
        iterations: at most.

    Returns:
        w, ``[T]``; 0 for a gradient that is zero, to which the equation gives no finite weight.
    """
    squares = np.maximum(np.diagonal(gramian), 0.0)
    nonzero = squares > 0
    weights = np.zeros(len(gramian))
    if not nonzero.any():
        return weights
    # Unknowns are counted in what they would be if all gradients were orthogonal.
    scale = squares[nonzero] ** (-1.0 / (1.0 + power))
    matrix = gramian[np.ix_(nonzero, nonzero)] * np.outer(scale, scale)
    height = scale ** (1.0 - power)  # of the second term in these units; also the diagonal of the matrix
    # Where a sum of gradients vanishes there is no solution: this bounds the weights.
    matrix[np.diag_indices(len(matrix))] += 1e-10 * height
    weights[nonzero] = scale * _newton(matrix, height, power, iterations)
    return weights


def _newton(matrix: np.ndarray, height: np.ndarray, power: float, iterations: int) -> np.ndarray:
    """min ½ xᵀM x − Σ h_t x_t^(1−p)/(1−p), over x > 0."""

    def objective(x: np.ndarray) -> float:
        barrier = np.log(x) if power == 1.0 else x ** (1.0 - power) / (1.0 - power)
        return 0.5 * x @ matrix @ x - height @ barrier

    x = np.ones(len(matrix))
    value = objective(x)
    for _ in range(iterations):
        pull = height * x**-power
        residual = matrix @ x - pull
        step = np.linalg.solve(matrix + np.diag(power * pull / x), -residual)
        if np.abs(residual / pull).max() < 1e-8:  # the next error is of the order of its square
            return x + step
        slope = residual @ step
        longest = np.min(np.where(step < 0, -x / np.where(step < 0, step, -1.0), np.inf))
        size = min(1.0, 0.9 * longest)
        while True:
            moved = x + size * step
            new = objective(moved)
            if new <= value + 1e-4 * size * slope or size < 1e-10:
                break
            size *= 0.5
        if size < 1e-10:  # no further progress within rounding
            break
        x, value = moved, new
    return x
