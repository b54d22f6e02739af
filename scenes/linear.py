"""Small matrices on long rows of coordinates."""

from __future__ import annotations

import numpy as np


def transform(matrix: np.ndarray, points) -> list[np.ndarray]:
    """``matrix @ points`` for three contiguous rows, without BLAS.

    The result of BLAS may depend on its number of threads in the last bit; pictures must not.
    """
    rows = []
    for coefficients in matrix:
        total = None
        for coefficient, values in zip(coefficients, points, strict=True):
            if coefficient == 0:
                continue
            if total is None:
                total = values * coefficient
            else:
                total += values * coefficient
        rows.append(np.zeros_like(points[0]) if total is None else total)
    return rows
