"""From the numbers of a label file to targets, with one pass over the array where nothing is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from harness.errors import UserError

NO_CLASS = 255
_WRONG = 254
_ROUNDING = 1e-3
_OVERSHOOT = 0.5
"""How far above 1 a picture in floats may go, as smooth resizing makes it; it is cut off."""


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
    """Class indices by a table of :func:`index_table`; −1 and NaN mean no label, whatever the table says.

    Raises:
        UserError: a number that the table does not know or that is not whole, with the file's name.
    """
    nothing = None
    if raw.dtype.kind == "b":
        raw = raw.view(np.uint8)
    elif raw.dtype.kind == "f":
        nothing = np.isnan(raw) | (raw == -1)
        raw = np.where(nothing, np.zeros((), raw.dtype), raw)
        whole = np.rint(raw)
        with np.errstate(invalid="ignore"):
            parts = np.abs(raw - whole) > _ROUNDING  # false for infinite ones, which are refused below
        if parts.any():
            raise UserError(f"{path} has {raw[parts][0]:g}, and labels are whole numbers: is it a map of something "
                            "else?")
        raw = whole
    elif raw.dtype.kind == "i" and raw.size and raw.min() < 0:
        nothing = raw == -1
        raw = np.where(nothing, np.zeros((), raw.dtype), raw)
    if raw.size and (raw.dtype != np.uint8 or len(table) < 256):
        for number in (raw.min(), raw.max()):
            if not 0 <= number < len(table):
                _refuse(path, number, table)
    indices = table.take(raw if raw.dtype == np.uint8 else raw.astype(np.intp))
    if nothing is not None:
        indices[nothing] = NO_CLASS
    if (indices == _WRONG).any():
        _refuse(path, raw[indices == _WRONG][0], table)
    return indices


def _refuse(path: str | Path, number: np.generic, table: np.ndarray) -> None:
    found = int(number) if np.isfinite(number) else number
    known = np.flatnonzero(table != _WRONG)
    legal = f"{known[0]} to {known[-1]}" if len(known) == known[-1] - known[0] + 1 else \
        f"{len(known)} numbers from {known[0]} to {known[-1]}"
    raise UserError(f"{path} has label {found}, and labels are {legal}: is it a file of another data set, or of other "
                    "classes?")


def positive(raw: np.ndarray) -> np.ndarray:
    """Depths, disparities: float32, 0 (no label) for what is NaN, infinite or negative. Always a new array."""
    with np.errstate(over="ignore"):
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
    """0 and 1, and 255 for no label. Floats are yes above ½, no label where −1, 255 or NaN.

    Raises:
        UserError: other numbers, with the file's name.
    """
    if raw.dtype.kind == "f":
        found = (raw > 0.5).astype(np.uint8)
        known = np.abs(raw - raw.dtype.type(0.5)) < 1  # false for NaN
        if not known.all():
            unknown = np.isnan(raw) | (raw == -1) | (raw == NO_CLASS)
            if not (known | unknown).all():
                raise UserError(f"{path} has {raw[~(known | unknown)][0]:g}, and labels are 0 or 1, or between them: "
                                "is it a file of another data set?")
            found[unknown] = NO_CLASS
        return found
    return class_map(raw, _BITS, path)


_BITS = shifted(2)


def share(raw: np.ndarray, top: float = 1.0) -> np.ndarray:
    """Heat maps: float32 in [0, 1], −1 (no label) where −1 is stored or what is not finite.

    Args:
        raw: stored numbers.
        top: the one that stands for 1.
    """
    values = raw.astype(np.float32)
    if top != 1:
        values *= np.float32(1 / top)
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    if not (low >= 0 and high <= 1):
        values = np.where(np.isfinite(raw) & (raw != -1), np.clip(values, 0, 1), np.float32(-1))
    return values


def picture_of(raw: np.ndarray, path: str | Path) -> np.ndarray:
    """A picture stored as an array: floats in [0, 1], or integers in [0, 255]; channels last or first.

    Returns:
        uint8 ``[H, W, 3]``.

    Raises:
        UserError: another shape, or numbers that are none of a picture.
    """
    if raw.ndim == 3 and raw.shape[0] in (1, 3) and raw.shape[2] not in (1, 3):
        raw = raw.transpose(1, 2, 0)
    if raw.ndim != 3 or raw.shape[2] not in (1, 3):
        raise UserError(f"{path} has shape {raw.shape}: a picture has height, width and 3 channels")
    if raw.dtype != np.uint8:
        top, limit = raw.max(initial=0), 1 + _OVERSHOOT if raw.dtype.kind == "f" else 255
        if top > limit:
            raise UserError(f"{path} has {top:g}: pictures in floats have 0 to 1, in integers 0 to 255")
        scale = np.float32(255 if raw.dtype.kind == "f" else 1)
        raw = np.clip(np.nan_to_num(raw * scale), 0, 255).round().astype(np.uint8)
    return np.ascontiguousarray(raw)
