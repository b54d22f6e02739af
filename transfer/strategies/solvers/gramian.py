"""Gradients as few coordinates: what a Gramian says about them."""

from __future__ import annotations

import numpy as np


def norms(gramian: np.ndarray) -> np.ndarray:
    """Norms ``[T]`` of the gradients; rounding below zero counts as zero."""
    return np.sqrt(np.maximum(np.diagonal(gramian), 0.0))


def inverse_or_zero(values: np.ndarray) -> np.ndarray:
    """1 / value, and 0 for 0: a gradient that is zero gets no weight."""
    return np.divide(1.0, values, out=np.zeros_like(values), where=values > 0)


def coordinates(gramian: np.ndarray) -> np.ndarray:
    """Points ``[T, r]`` with these inner products: the gradients in a basis of their span.

    So a problem over the network's parameters is one in r ≤ T dimensions. From the eigenvectors, as
    Gramians of gradients are often singular, where Cholesky's factor does not exist.
    """
    values, vectors = np.linalg.eigh(gramian)
    kept = values > np.finfo(np.float64).eps * len(values) * max(values[-1], 0.0)
    return vectors[:, kept] * np.sqrt(values[kept])


#: What counts as zero among the eigenvalues of unit gradients' inner products, relative to the largest: of the size of
#: the error of products in float32.
ROUNDING = 1e-6


def independent_coordinates(gramian: np.ndarray, rounding: float = ROUNDING) -> np.ndarray:
    """Points ``[T, r]``, r the rank of the unit gradients: the gradients in r independent directions.

    As :func:`coordinates`, but for the question what is independent: it is asked of the gradients' directions, so that
    a gradient much smaller than the others counts, and one that depends on others up to rounding does not.

    Args:
        gramian: ``[T, T]``.
        rounding: what counts as zero among eigenvalues, relative to the largest.
    """
    lengths = norms(gramian)
    inverse = inverse_or_zero(lengths)
    values, vectors = np.linalg.eigh(gramian * np.outer(inverse, inverse))
    kept = values > rounding * max(values[-1], 0.0)
    return lengths[:, None] * vectors[:, kept] * np.sqrt(values[kept])


def equal_projections(gramian: np.ndarray, rounding: float = ROUNDING) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the unit gradients whose sum has the same inner product, 1, with each of them.

    Least-squares solution y of U Uᵀ y = 1, for the unit gradients U. Taking unit gradients first keeps
    tasks whose gradients have very different sizes apart; singular values that are only the rounding of
    the gradients, as those of two tasks with one gradient, count as zero.

    Args:
        gramian: ``[T, T]``.
        rounding: what counts as zero among the eigenvalues of U Uᵀ, relative to the largest.

    Returns:
        y, and the inverse norms of the gradients; both ``[T]``, 0 for a gradient that is zero.
    """
    inverse = inverse_or_zero(norms(gramian))
    cosines = gramian * np.outer(inverse, inverse)
    nonzero = (inverse > 0).astype(np.float64)
    if not nonzero.any():
        return nonzero, inverse
    return np.linalg.pinv(cosines, rcond=rounding, hermitian=True) @ nonzero, inverse
