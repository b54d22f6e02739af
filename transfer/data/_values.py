"""From the numbers of a label file to targets, with one pass over the array where nothing is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from harness.errors import UserError

NO_CLASS = 255
_WRONG = 254
_ROUNDING = 1e-3


def index_table(classes: Mapping[int, int], ignored: tuple[int, ...] = (255,), size: int = 256) -> np.ndarray:
    """For each stored number its class index, 255 where it means no label, and 254 where it means nothing.

    Args:
        classes: class index by stored number.
        ignored: stored numbers that mean "no label".
        size: stored numbers that there can be.
    """
    table = np.full(size, _WRONG, np.uint8)
    for stored, index in classes.items():
        table[stored] = index
    for stored in ignored:
        if stored < size:
            table[stored] = NO_CLASS
    return table


def shifted(count: int, first: int = 0, ignored: tuple[int, ...] = (255,)) -> np.ndarray:
    """The table of ``count`` classes that are stored as ``first``, ``first + 1``, …"""
    return index_table({first + index: index for index in range(count)}, ignored)


def class_map(raw: np.ndarray, table: np.ndarray, path: str | Path) -> np.ndarray:
    """Class indices by a table of :func:`index_table`; floats are rounded, −1 and NaN mean no label.

    Raises:
        UserError: a number that the table does not know, with the file's name.
    """
    if raw.dtype.kind == "f":
        raw = np.where(raw >= 0, raw, NO_CLASS)  # NaN is not
        raw = np.where(raw < len(table), raw, len(table)).round().astype(np.int64)
    elif raw.dtype.kind == "b":
        raw = raw.view(np.uint8)
    elif raw.dtype.kind == "i" and raw.size and raw.min() < 0:
        raw = np.where(raw == -1, NO_CLASS, np.where(raw < -1, len(table), raw))
    if raw.dtype != np.uint8 or len(table) < 256:
        top = int(raw.max(initial=0))
        if top >= len(table):
            _refuse(path, "a number outside its range" if top == len(table) else str(top), table)
    indices = table.take(raw)
    if (indices == _WRONG).any():
        _refuse(path, str(raw[indices == _WRONG][0]), table)
    return indices


def _refuse(path: str | Path, found: str, table: np.ndarray) -> None:
    known = np.flatnonzero(table != _WRONG)
    legal = f"{known[0]} to {known[-1]}" if len(known) == known[-1] - known[0] + 1 else \
        f"{len(known)} numbers from {known[0]} to {known[-1]}"
    raise UserError(f"{path} has label {found}, and labels are {legal}: is it a file of another data set, or of other "
                    "classes?")


def positive(raw: np.ndarray) -> np.ndarray:
    """Depths, disparities: float32, 0 (no label) for what is NaN, infinite or negative. Always a new array."""
    values = raw.astype(np.float32)
    if values.size and not (values.min() >= 0 and values.max() < np.inf):  # false for NaN
        values[~((values > 0) & (values < np.inf))] = 0
    return values


def unit_vectors(raw: np.ndarray, path: str | Path) -> np.ndarray:
    """Directions ``[H, W, 3]`` of length 1, 0 (no label) where the stored one is not within ½ of it or not finite.

    Raises:
        UserError: another shape.
    """
    if raw.ndim == 3 and raw.shape[0] == 3 and raw.shape[2] != 3:
        raw = raw.transpose(1, 2, 0)
    if raw.ndim != 3 or raw.shape[2] != 3:
        raise UserError(f"{path} has shape {raw.shape}: normals have height, width and 3")
    vectors = raw.astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.square(vectors) @ np.ones(3, np.float32)  # several times as fast as a sum over the last axis
    known = (squares > 0.25) & (squares < 2.25)  # false for NaN
    if not known.all():
        vectors[~known] = 0
        squares[~known] = 1
    if squares.min() < 1 - _ROUNDING or squares.max() > 1 + _ROUNDING:  # most are of length 1 already
        vectors *= (1 / np.sqrt(squares))[..., None]
    return vectors


def yes_or_no(raw: np.ndarray, path: str | Path) -> np.ndarray:
    """0 and 1, and 255 for no label. Floats are yes above ½ and no label where NaN; integers are 0, 1 or 255.

    Raises:
        UserError: other integers, with the file's name.
    """
    if raw.dtype.kind == "f":
        found = (raw > 0.5).astype(np.uint8)
        unknown = ~(raw <= 1)  # NaN, 255
        if unknown.any():
            found[unknown] = NO_CLASS
        return found
    return class_map(raw, _BITS, path)


_BITS = shifted(2)


def share(raw: np.ndarray, top: float = 1.0) -> np.ndarray:
    """Heat maps: float32 in [0, 1], −1 (no label) where not finite.

    Args:
        raw: stored numbers.
        top: the one that stands for 1.
    """
    values = raw.astype(np.float32)
    if top != 1:
        values *= np.float32(1 / top)
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    if not (low >= 0 and high <= 1):
        values = np.where(np.isfinite(values), np.clip(values, 0, 1), np.float32(-1))
    return values


def picture_of(raw: np.ndarray, path: str | Path) -> np.ndarray:
    """A picture stored as an array: floats in [0, 1], or uint8; channels last or first.

    Returns:
        uint8 ``[H, W, 3]``.

    Raises:
        UserError: another shape.
    """
    if raw.ndim == 3 and raw.shape[0] in (1, 3) and raw.shape[2] not in (1, 3):
        raw = raw.transpose(1, 2, 0)
    if raw.ndim != 3 or raw.shape[2] not in (1, 3):
        raise UserError(f"{path} has shape {raw.shape}: a picture has height, width and 3 channels")
    if raw.dtype != np.uint8:
        raw = np.clip(np.nan_to_num(raw * np.float32(255)), 0, 255).round().astype(np.uint8)
    return np.ascontiguousarray(raw)
