"""What stands in a cell of a manifest, by the kind of its task."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import UserError, closest
from transfer.data._files import plane, read_colours, read_indices, read_numbers
from transfer.data._values import NO_CLASS, class_map, index_table, positive, share, unit_vectors, yes_or_no

YES_OR_NO = ("saliency", "edge", "binary_segmentation")


@dataclass(frozen=True)
class Column:
    """What a manifest says of one task.

    Args:
        task: kind of the task.
        classes: names of its classes.
        first: stored number of class 0.
        ignored: stored numbers that mean "no label"; None where nothing was said of them.
        scale: what a stored number of 1 stands for: metres for depth, pixels for disparity, a share for heat maps.
    """

    task: str
    classes: tuple[str, ...] = ()
    first: int = 0
    ignored: tuple[int, ...] | None = None
    scale: float = 1.0


@dataclass(frozen=True)
class MapReader:
    """Reader of label files of one task."""

    column: Column
    table: np.ndarray | None = field(default=None, compare=False)

    def __call__(self, path: Path) -> np.ndarray:
        kind, is_array = self.column.task, path.suffix.lower() == ".npy"
        if kind == "normals":
            return unit_vectors(read_numbers(path) if is_array else
                                read_colours(path).astype(np.float32) * np.float32(2 / 255) - 1, path)
        if kind == "instance_center":
            return _offsets(read_numbers(path), path)
        raw = plane(read_numbers(path) if is_array else read_indices(path), path)
        if kind in ("depth", "disparity", "inverse_depth"):
            values = self._without(positive(raw), raw, 0)
            return values if self.column.scale == 1 else values * np.float32(self.column.scale)
        if kind in ("keypoints", "heat_map"):
            return self._without(share(raw, 1 / self.column.scale), raw, -1)
        if self.table is not None:
            return class_map(self._unsigned(raw), self.table, path)
        drawn = raw.dtype.kind != "b" and raw.max(initial=0) == NO_CLASS and not (raw == 1).any()
        return class_map(raw, _BLACK_AND_WHITE, path) if drawn else yes_or_no(raw, path)

    def _unsigned(self, raw: np.ndarray) -> np.ndarray:
        """−1 for the negative numbers that mean "no label"."""
        negative = [number for number in self.column.ignored or () if number < -1]
        return np.where(np.isin(raw, negative), raw.dtype.type(-1), raw) if negative and raw.dtype.kind in "if" else raw

    def _without(self, target: np.ndarray, raw: np.ndarray, nothing: float) -> np.ndarray:
        """A target, ``nothing`` where a number is stored that means "no label"."""
        if self.column.ignored:
            target[np.isin(raw, self.column.ignored)] = nothing
        return target


_BLACK_AND_WHITE = index_table({0: 0, NO_CLASS: 1}, ())
"""A mask that is drawn, where nothing is said of 255 and nothing else says 1."""


def map_reader(column: Column) -> MapReader:
    """The reader of a task's label files."""
    ignored = (NO_CLASS,) if column.ignored is None else tuple(number for number in column.ignored if number >= 0)
    if column.task in ("semseg", "parts"):
        stored = {column.first + index: index for index in range(len(column.classes))}
    elif column.task in YES_OR_NO and column.ignored is not None:
        stored = {0: 0, 1: 1, NO_CLASS: 1}
    else:
        return MapReader(column)
    return MapReader(column, index_table(stored, ignored, max(256, 1 + max((*stored, *ignored)))))


def _offsets(raw: np.ndarray, path: Path) -> np.ndarray:
    if raw.ndim != 3 or raw.shape[2] != 2:
        raise UserError(f"{path} has shape {raw.shape}: offsets have height, width and 2")
    return np.nan_to_num(raw.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)


def value_reader(column: Column) -> Callable[[Any], np.ndarray]:
    """The reader of a task's cells, for what is told of the whole image. It raises ValueError for nonsense."""
    readers = {"attributes": _attributes, "localization": _point, "scene_distribution": _shares}
    return lambda cell: readers.get(column.task, _class)(cell, column)


def _parsed(cell: Any) -> Any:
    """A list or number that is written out, or the text."""
    if not isinstance(cell, str):
        return cell
    text = cell.strip()
    if text[:1] in "[{":
        return json.loads(text)
    return [part.strip() for part in text.split(";")] if ";" in text else text


def _class(cell: Any, column: Column) -> np.ndarray:
    value = _parsed(cell)
    if isinstance(value, str) and value in column.classes:
        return np.int64(column.classes.index(value))
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"'{value}' is no class{closest(str(value), column.classes)}") from None
    if not number.is_integer() or not 0 <= number - column.first < len(column.classes):
        raise ValueError(f"class {value} is not one of {column.first} to {column.first + len(column.classes) - 1}")
    return np.int64(int(number) - column.first)


def _shares(cell: Any, column: Column) -> np.ndarray:
    value = _parsed(cell)
    if not isinstance(value, list):
        return np.eye(len(column.classes), dtype=np.float32)[_class(cell, column)]
    shares = np.array(value, np.float32)
    if shares.shape != (len(column.classes),) or not (shares.min() >= 0 and 0 < shares.sum() < math.inf):
        raise ValueError(f"a distribution needs {len(column.classes)} shares, none below 0")
    return shares / shares.sum()


def _attributes(cell: Any, column: Column) -> np.ndarray:
    value = _parsed(cell)
    parts: Sequence[Any] = value if isinstance(value, list) else [value]
    if all(isinstance(part, str) and part in column.classes for part in parts):
        return np.array([name in parts for name in column.classes], np.uint8)
    if value == "none":
        return np.zeros(len(column.classes), np.uint8)
    numbers = [-1 if part in ("", None, "?") else float(part) for part in parts]
    if len(numbers) != len(column.classes) or any(number not in (0, 1, -1, 255) for number in numbers):
        raise ValueError(f"'{cell}' names no attributes, and is not {len(column.classes)} times 0, 1 or ?")
    return np.array([255 if number in (-1, 255) else number for number in numbers], np.uint8)


def _point(cell: Any, column: Column) -> np.ndarray:
    value = _parsed(cell)
    point = np.array(value, np.float32) if isinstance(value, list) and len(value) == 2 else np.array([math.nan])
    if point.shape != (2,) or not np.isfinite(point).all():
        raise ValueError(f"'{cell}' is no point: write x;y in pixels")
    return point
