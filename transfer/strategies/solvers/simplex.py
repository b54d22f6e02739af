"""Weights that are not negative and sum to one."""

from __future__ import annotations

import numpy as np


def project_onto_simplex(values: np.ndarray) -> np.ndarray:
    """The nearest point of the simplex: max(v − θ, 0) with the θ that makes it sum to 1."""
    values = values - values.max()  # which moves θ alone; and beside large values a sum of 1 would be lost
    falling = np.sort(values)[::-1]
    thresholds = (np.cumsum(falling) - 1.0) / np.arange(1, len(values) + 1)
    positive = max(1, np.count_nonzero(falling > thresholds))  # none only among values that are not finite
    return np.maximum(values - thresholds[positive - 1], 0.0)
