"""How well a mask fits: region similarity J and boundary accuracy F (Perazzi et al., 2016, section 4; DAVIS)."""

from __future__ import annotations

import math

import numpy as np
from scipy.spatial import cKDTree

TOLERANCE = 0.008
"""How far two boundaries may be apart, as a share of the image's diagonal."""


def region_similarity(predicted: np.ndarray, truth: np.ndarray) -> float:
    """J: intersection over union of two masks.

    Args:
        predicted: bool ``[H, W]``.
        truth: bool ``[H, W]``.

    Returns:
        From 0 to 1; 1 where both are empty.
    """
    union = np.count_nonzero(predicted | truth)
    return np.count_nonzero(predicted & truth) / union if union else 1.0


def boundary_accuracy(predicted: np.ndarray, truth: np.ndarray, tolerance: float = TOLERANCE) -> float:
    """F: harmonic mean of the shares of each boundary that lie near the other one.

    Near is within the tolerance, rounded up to whole pixels: what a disk of that radius reaches, laid on every pixel
    of the other boundary.

    Args:
        predicted: bool ``[H, W]``.
        truth: bool ``[H, W]``.
        tolerance: as a share of the diagonal.

    Returns:
        From 0 to 1; 1 where neither mask has a boundary, 0 where one of them has none.
    """
    reach = math.ceil(tolerance * math.hypot(*truth.shape))
    found, wanted = (np.argwhere(boundary(mask)) for mask in (predicted, truth))
    if not len(found) or not len(wanted):
        return float(len(found) == len(wanted))
    precision, recall = _share_near(found, wanted, reach), _share_near(wanted, found, reach)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary(mask: np.ndarray) -> np.ndarray:
    """Pixels that differ from the one to the right, below, or diagonally below to the right, where there is one.

    Args:
        mask: bool ``[H, W]``.

    Returns:
        bool ``[H, W]``.
    """
    around = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    return (mask != around[:-1, 1:]) | (mask != around[1:, :-1]) | (mask != around[1:, 1:])


def _share_near(points: np.ndarray, others: np.ndarray, reach: int) -> float:
    """Share of points ``[N, 2]`` with one of the others within reach."""
    # the square roots of whole numbers are exact where they are whole: the end of the reach is included
    distance, _ = cKDTree(others).query(points)
    return float(np.mean(distance <= reach))
