"""Some of many, evenly apart."""

from __future__ import annotations

import numpy as np


def spread(length: int, count: int) -> list[int]:
    """``count`` of the numbers below ``length``, evenly apart and ascending, the first and the last among them."""
    return np.unique(np.linspace(0, length - 1, min(count, length)).round().astype(int)).tolist()
