"""Lines of one pixel's width from thick ones."""

from __future__ import annotations

import numpy as np

_AROUND = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))
"""Neighbours x1 … x8: east, then counter-clockwise; rows point down."""
_WORD = 64


def thin(masks: np.ndarray) -> np.ndarray:
    """Peel masks, from two sides in turn, until only lines remain; connected regions stay connected.

    Source: Guo and Hall 1989, as stated by Lam, Lee and Suen 1992 (algorithm A1, the conditions G1 to G3), which is
    what the published evaluation of boundaries applies. Sixty-four masks are peeled at once: each has a bit of the
    words that logic works on.

    Args:
        masks: bool ``[N, H, W]``.

    Returns:
        bool ``[N, H, W]``, new.
    """
    count, height, width = masks.shape
    lines = np.empty_like(masks)
    for start in range(0, count, _WORD):
        part = masks[start : start + _WORD]
        bits = np.zeros((height, width, _WORD // 8), np.uint8)
        packed = np.moveaxis(np.packbits(part, axis=0, bitorder="little"), 0, -1)
        bits[..., : packed.shape[-1]] = packed
        words = np.zeros((height + 2, width + 2), np.uint64)  # a border saves every test for the edge
        words[1:-1, 1:-1] = bits.view(np.uint64)[..., 0]
        _peel(words)
        found = np.ascontiguousarray(words[1:-1, 1:-1])[..., None].view(np.uint8)
        unpacked = np.unpackbits(np.moveaxis(found, -1, 0), axis=0, bitorder="little")
        lines[start : start + _WORD] = unpacked[: len(part)]
    return lines


def _peel(words: np.ndarray) -> None:
    """Thin all bits of words ``[H + 2, W + 2]`` in place; only rows that changed, and theirs beside, are looked at."""
    rows = len(words) - 2
    active = [np.ones(rows, bool), np.ones(rows, bool)]  # for either side: what to look at the next time
    side = 0
    while active[0].any() or active[1].any():
        looked, active[side] = active[side], np.zeros(rows, bool)
        changed = np.zeros(rows, bool)
        peeled = []
        for first, last in _runs(looked):
            goes = _goes(words[first : last + 2], side)
            changed[first:last] = goes.any(1)
            peeled.append((first, last, goes))
        for first, last, goes in peeled:  # all of a pass at once
            words[first + 1 : last + 1, 1:-1] &= ~goes
        near = changed.copy()
        near[1:] |= changed[:-1]
        near[:-1] |= changed[1:]
        for both in active:
            both |= near
        side = 1 - side


def _runs(chosen: np.ndarray) -> list[tuple[int, int]]:
    """Ranges of rows that follow each other."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], chosen, [False]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _goes(words: np.ndarray, side: int) -> np.ndarray:
    """Which bits the conditions let go: those of ``[h + 2, w + 2]`` words without their border, uint64 ``[h, w]``."""
    height, width = words.shape[0] - 2, words.shape[1] - 2
    x = [words[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width] for dy, dx in _AROUND]
    pairs = [x[k] | x[(k + 1) % 8] for k in range(8)]
    # G1: one crossing from outside to inside around the pixel
    a, b, c, d = (~x[k] & pairs[k + 1] for k in (0, 2, 4, 6))
    found = (a ^ b ^ c ^ d) & ~(a & b | c & d)
    # G2: two or three of the pairs of neighbours, whichever way they are paired
    four = None
    for begin in (0, 1):
        a, b, c, d = pairs[begin::2]
        first, second = a & b, c & d
        found &= first | second | (a | b) & (c | d)
        four = first & second if four is None else four & first & second
    found &= ~four
    # G3: from this side
    one, two, three, last = (x[k] for k in ((0, 1, 2, 7) if side == 0 else (4, 5, 6, 3)))
    found &= ~((two | three | ~last) & one)
    return found & words[1:-1, 1:-1]
