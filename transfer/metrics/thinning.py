"""Lines of one pixel's width from thick ones."""

from __future__ import annotations

import numpy as np

_AROUND = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))
"""Neighbours x1 … x8: east, then counter-clockwise; rows point down."""


def _tables() -> np.ndarray:
    """Whether a pixel goes, by the code Σ x_k 2^(k−1) of its neighbours: bool ``[2, 256]``."""
    tables = np.zeros((2, 256), bool)
    for code in range(256):
        x = [bool(code >> k & 1) for k in range(8)] * 2  # x[0] is x1, and x[8] is x1 again
        crossings = sum(not x[k] and (x[k + 1] or x[k + 2]) for k in (0, 2, 4, 6))
        pairs = (sum(x[k] or x[k + 1] for k in (0, 2, 4, 6)), sum(x[k] or x[k + 1] for k in (1, 3, 5, 7)))
        if crossings == 1 and 2 <= min(pairs) <= 3:
            tables[0, code] = not ((x[1] or x[2] or not x[7]) and x[0])
            tables[1, code] = not ((x[5] or x[6] or not x[3]) and x[4])
    return tables


_GOES = _tables()


def thin(masks: np.ndarray) -> np.ndarray:
    """Peel masks, from two sides in turn, until only lines remain; connected regions stay connected.

    Source: Guo and Hall 1989, as stated by Lam, Lee and Suen 1992 (algorithm A1, the conditions G1 to G3), which is
    what the published evaluation of boundaries applies. A pixel is looked at again only when one of its neighbours
    has gone since: all the work is proportional to the number of pixels, not to that of passes.

    Args:
        masks: bool ``[N, H, W]``.

    Returns:
        bool ``[N, H, W]``, new.
    """
    count, height, width = masks.shape
    alive = np.zeros((count, height + 2, width + 2), bool)  # a border saves every test for the edge
    alive[:, 1:-1, 1:-1] = masks
    flat, row = alive.reshape(-1), width + 2
    offsets = np.array([dy * row + dx for dy, dx in _AROUND])
    stamp = np.zeros(flat.size, np.int32)
    inner = alive[:, 1:-1, 1:-1] & alive[:, :-2, 1:-1] & alive[:, 2:, 1:-1] & alive[:, 1:-1, :-2] & alive[:, 1:-1, 2:]
    outline = alive.copy()
    outline[:, 1:-1, 1:-1] &= ~inner  # all four neighbours are there: neither table lets it go
    candidates = np.flatnonzero(outline)
    gone_before, first, step = candidates, True, 0
    while True:
        code = np.zeros(len(candidates), np.uint8)
        for k, offset in enumerate(offsets):
            code |= flat[candidates + offset].view(np.uint8) << np.uint8(k)
        gone = candidates[_GOES[step % 2][code]]
        flat[gone] = False
        step += 1
        if not first and not len(gone) and not len(gone_before):
            return alive[:, 1:-1, 1:-1]
        if first:
            # the second table has not seen any pixel yet
            candidates = np.concatenate([candidates, (gone[:, None] + offsets).ravel()])
            first = False
        else:
            touched = np.concatenate([gone_before, gone])
            candidates = (touched[:, None] + offsets).ravel()
        candidates = candidates[flat[candidates]]
        stamp[candidates] = np.arange(len(candidates), dtype=np.int32)  # the last of equal ones keeps its number
        candidates = candidates[stamp[candidates] == np.arange(len(candidates), dtype=np.int32)]
        gone_before = gone
