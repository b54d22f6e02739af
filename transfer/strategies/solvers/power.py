"""G w = w^(−p): the stationary points of bargaining and of α-fairness."""

from __future__ import annotations

import numpy as np

from transfer.strategies.solvers.gramian import norms

#: Added to the squares of unit gradients, so that weights are bounded where a sum of gradients vanishes, and the
#: equation has no solution.
REGULARISATION = 1e-10


def solve_power(gramian: np.ndarray, power: float, iterations: int = 1000, tolerance: float = 1e-10) -> np.ndarray:
    """The positive w with (G w)_t = w_t^(−p), by Newton's method in log w.

    It is where the gradient of the strictly convex ½ wᵀG w − Σ_t w_t^(1−p)/(1−p) (for p = 1:
    ½ wᵀG w − Σ_t log w_t) vanishes. See :func:`_newton`.

    Args:
        gramian: ``[T, T]``, positive semi-definite.
        power: p > 0.
        iterations: at most; few are needed but by gradients that oppose each other.
        tolerance: of log((G w)_t w_t^p), at which it stops.

    Returns:
        w, ``[T]``; 0 for a gradient that is zero, to which the equation gives no finite weight.
    """
    lengths = norms(gramian)
    nonzero = lengths > 0
    weights = np.zeros(len(gramian))
    if not nonzero.any():
        return weights
    lengths = lengths[nonzero]
    cosines = gramian[np.ix_(nonzero, nonzero)] / np.outer(lengths, lengths)
    values, vectors = np.linalg.eigh(cosines)
    if values[0] < 0:  # by rounding: the problem would have no bound
        cosines = (vectors * values.clip(min=0)) @ vectors.T
    # Unknowns are counted in what they would be if all gradients were orthogonal.
    scale = lengths ** (-2.0 / (1.0 + power))
    height = scale ** (1.0 - power)  # of the second term in these units; also the diagonal of the first's matrix
    roots = np.sqrt(height)
    matrix = cosines * np.outer(roots, roots)
    bounded, _ = _newton(matrix + REGULARISATION * np.diag(height), height, power, iterations, tolerance)
    exact, error = _newton(matrix, height, power, 50, tolerance, bounded)
    weights[nonzero] = scale * np.exp(exact if error < 1e-4 else bounded)
    return weights


def _newton(matrix: np.ndarray, height: np.ndarray, power: float, iterations: int, tolerance: float,
            start: np.ndarray | None = None) -> tuple[np.ndarray, float]:
    """log x for the x > 0 with M x = h x^(−p); and the largest |log(M x) + p log x − log h|.

    Newton's method on these, where M x is positive and the step brings the largest down enough. It has no trouble
    with terms of many orders of magnitude, as values of the convex objective ½ xᵀM x − Σ h_t x_t^(1−p)/(1−p)
    would. Elsewhere a step of Newton's method on that objective, so short that no x_t changes by more than
    1/(2 + 2p) of itself: as the second derivatives of the barrier change by less than a factor of 2 over that
    range, it lessens the objective whatever its values are. So the solution is reached from x = 1.

    Args:
        matrix: M, positive definite.
        height: h.
        power: p.
        iterations: at most.
        tolerance: of what is returned.
        start: log x near the solution, from which only the first kind of step is made; M may be singular then.
    """
    near = start is not None
    place = start if near else np.zeros(len(matrix))
    heights = np.log(height)

    def residual(place: np.ndarray) -> np.ndarray:
        product = matrix @ np.exp(place)
        return np.log(product, out=np.full(len(matrix), np.inf), where=product > 0) + power * place - heights

    rest = residual(place)
    best = np.inf
    for _ in range(iterations):
        error = np.abs(rest).max()
        if error < tolerance:
            break
        best = min(best, error)
        x = np.exp(place)
        if np.isfinite(error):
            step = np.linalg.solve(matrix * x / (matrix @ x)[:, None] + power * np.eye(len(x)), -rest)
            longest = np.abs(step).max()
            for share in (1.0, 0.5, 0.25, 0.1):
                moved = place + min(share, 100.0 / longest) * step
                after = residual(moved)
                if np.abs(after).max() <= (1.0 - 0.5 * share) * best:
                    break
            else:
                moved = None
                if longest < 1e-4:  # it would square the error, but for rounding
                    break
            if moved is not None:
                place, rest = moved, after
                continue
        if near:
            break
        # In units in which the Hessian's second term is p.
        unit = np.sqrt(height * x ** (1.0 - power))
        hessian = matrix * np.outer(x / unit, x / unit) + power * np.eye(len(x))
        step = np.linalg.solve(hessian, unit - x * (matrix @ x) / unit) / unit  # relative to x
        place = place + np.log1p(min(1.0, 0.5 / ((1.0 + power) * np.abs(step).max())) * step)
        rest = residual(place)
    return place, float(np.abs(rest).max())
