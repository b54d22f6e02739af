"""How many pixels of two sets of lines belong together."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching

_PAIRS = 40_000
"""About so many pairs are held at once."""


def matched_pixels(found: np.ndarray, truth: np.ndarray, distance: float) -> np.ndarray:
    """Largest number of disjoint pairs of a found and a true pixel that lie at most ``distance`` apart.

    A maximum matching, which is what the published evaluation of boundaries counts: its assignment takes every pair
    that it can, since leaving a pixel out costs far more than any distance that is allowed.

    Args:
        found: bool ``[N, H, W]``, several predictions.
        truth: bool ``[H, W]``.
        distance: pixels.

    Returns:
        int64 ``[N]``.
    """
    reach = int(np.floor(distance))
    steps = np.arange(-reach, reach + 1)
    near = steps[:, None] ** 2 + steps**2 <= distance**2
    dy, dx = (part[near] for part in np.meshgrid(steps, steps, indexing="ij"))
    rows, columns = np.nonzero(truth)
    height, width = truth.shape
    padded = np.zeros((len(found), height + 2 * reach, width + 2 * reach), bool)
    padded[:, reach:reach + height, reach:reach + width] = found
    places = ((rows[:, None] + dy + reach) * (width + 2 * reach) + columns[:, None] + dx + reach)  # [true, offsets]
    planes = padded.reshape(len(found), -1)
    # pixels of the picture that lie near a true pixel, and of which true pixels
    result = np.zeros(len(found), np.int64)
    start, members, pairs = 0, [], 0
    for index, plane in enumerate(planes):
        pixel, offset = np.nonzero(plane[places]) if len(rows) else (np.zeros(0, int), np.zeros(0, int))
        members.append((pixel, places[pixel, offset]))
        pairs += len(pixel)
        if pairs > _PAIRS or index == len(planes) - 1:
            result[start:index + 1] = _sizes(members, len(rows), planes.shape[1])
            start, members, pairs = index + 1, [], 0
    return result


def _sizes(graphs: list[tuple[np.ndarray, np.ndarray]], rows: int, columns: int) -> np.ndarray:
    """Sizes of maximum matchings of several graphs, each pairs (row, column), found at once as parts of one graph."""
    left = np.concatenate([row + index * rows for index, (row, _) in enumerate(graphs)])
    right = np.concatenate([column + index * columns for index, (_, column) in enumerate(graphs)])
    if not len(left):
        return np.zeros(len(graphs), np.int64)
    nodes, left = _numbered(left, rows * len(graphs))
    others, right = _numbered(right, columns * len(graphs))
    graph = coo_matrix((np.ones(len(left), np.uint8), (left, right)), shape=(len(nodes), len(others))).tocsr()
    partner = maximum_bipartite_matching(graph, perm_type="column")
    return np.bincount(nodes[partner >= 0] // max(rows, 1), minlength=len(graphs))


def _numbered(values: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """The different values in order, and the place of each value among them; without sorting."""
    there = np.zeros(limit, bool)
    there[values] = True
    return np.flatnonzero(there), np.cumsum(there, dtype=np.int32)[values] - 1
