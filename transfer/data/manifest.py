"""Your own data: a line for each sample, with any subset of labels."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.about import About
from harness.errors import UserError, closest
from transfer.data._arrays import held_out
from transfer.data._folder import Field, FolderSplit, Known, Listing, draw_point, some
from transfer.data._manifest_values import YES_OR_NO, Column, map_reader, value_reader
from transfer.data.base import DATASETS, DataSet, Label, Split
from transfer.transforms import as_size

_OPTIONS = ("task", "classes", "first", "ignored", "scale")
_LARGEST = 65535
"""Of the numbers that a label file may hold for a class, or for no label."""
_MAPS = ("semseg", "parts", "saliency", "edge", "binary_segmentation", "depth", "disparity", "inverse_depth", "normals",
         "instance_center", "keypoints", "heat_map")
_VALUES = ("classification", "scene", "scene_distribution", "attributes", "localization")
_CLASSED = ("semseg", "parts", "classification", "scene", "scene_distribution", "attributes")
_OWN = ("image", "split")
_JSONL = (".jsonl", ".ndjson")
_SCALED = ("depth", "disparity", "inverse_depth", "keypoints", "heat_map")
_TAKES = {"classes": _CLASSED, "first": tuple(kind for kind in _CLASSED if kind != "attributes"), "scale": _SCALED,
          "ignored": ("semseg", "parts", *YES_OR_NO, *_SCALED)}


@DATASETS.register("manifest")
class Manifest(DataSet):
    """Images and labels that a table names: CSV with a header, or JSONL with an object a line (docs/data.md).

    Column ``image`` is the image's path; ``split`` is ``train``, ``val`` or ``test`` (train where it is empty); every
    other column is a task: a path for labels of pixels, the value itself for labels of the image. An empty cell, null
    or a missing key means that the sample has no label of that task.

    Args:
        file: the table, ``.csv`` or ``.jsonl``.
        tasks: what each column is, by its name: ``{depth: {task: depth, scale: 0.001}, kind: {task: classification,
            classes: [cat, dog]}}``; a column that has the name of a task needs no ``task``. Options: ``task``,
            ``classes``, ``first`` (stored number of class 0), ``ignored`` (stored numbers without label), ``scale``
            (what a stored 1 stands for). All of these columns must be there; one that is no task is left out with
            ``notes: null``.
        root: folder that paths are relative to; the table's own when none.
        val_count: training samples that become the split ``val``, where the table has none.
        seed: of that draw.
        size: side, or height and width, that images and labels are brought to when they are read; their own when none.
    """

    holds = "any"
    about = About("your own data", "docs/data.md, Your own data", "yours", """\
FILE.csv:    image,split,semseg,depth,kind
             photos/1.jpg,train,masks/1.png,,cat
             photos/2.jpg,val,,depth/2.npy,dog""")

    def __init__(self, file: str | None = None, tasks: dict[str, Any] | None = None, root: str | None = None,
                 val_count: int = 0, seed: int = 0, size: int | list[int] | None = None) -> None:
        if not file:
            raise UserError("manifest: data.file is not set: give the table with --data.file FILE.csv")
        self.file = Path(file).expanduser()
        self.root = Path(root).expanduser() if root else self.file.parent
        self.size, self.val_count, self.seed = as_size(size, "manifest"), val_count, seed
        # a column without description that is called like a task is one: depth needs none
        self.left_out = {name for name, given in (tasks or {}).items() if given is None and name not in _MAPS + _VALUES}
        self.columns = {name: _column(name, given) for name, given in (tasks or {}).items()
                        if name not in self.left_out}
        if not self.columns:
            raise UserError("manifest: data.tasks is empty: say what each column is, as --data.tasks '{semseg: "
                            "{classes: [sky, ground]}}'")
        self._names: dict[str, list[str]] = {}
        self._rows: dict[str, list[dict[str, Any]]] = {}
        self._read()
        self.splits = tuple(split for split in ("train", "val", "test") if split in self._names)
        self._known = {name: self._values(name, column) for name, column in self.columns.items()
                       if column.task in _VALUES}
        self._check_files()

    @property
    def labels(self) -> Mapping[str, Label]:
        return {name: Label(column.task, column.classes) for name, column in self.columns.items()}

    def load(self, split: str) -> Split:
        rows, sources, files = self._rows[split], {}, {}
        for task in self.tasks:
            column = self.columns[task]
            if column.task in _VALUES:
                draw = draw_point if column.task == "localization" else None
                sources[task] = Known(Label(column.task, column.classes), self._known[task], draw)
            else:
                sources[task] = Field(Label(column.task, column.classes), map_reader(column), ())
                files[task] = [row.get(task) for row in rows]
        names = self._names[split]
        return FolderSplit(split, self.root, names, names, dict(self.tasks), files, sources, self.size)

    def fingerprint(self) -> str:
        content = json.dumps([self._rows, {name: vars(column) for name, column in self.columns.items()}, self.size],
                             sort_keys=True, default=str)
        return f"manifest-{hashlib.blake2b(content.encode(), digest_size=6).hexdigest()}"

    def _read(self) -> None:
        """Rows by split.

        Raises:
            UserError: a column is missing or unknown, an image is named twice.
        """
        seen: dict[str, tuple[int, str]] = {}
        found = set()
        for line, row in _lines(self.file):
            unknown = sorted(set(row) - set(self.columns) - self.left_out - set(_OWN))
            if unknown:
                self._refuse_unknown(unknown, 1 if self._is_csv else line,
                                     [task for task in self.columns if task not in row] if self._is_csv else [])
            found.update(row)
            image, split = row.get("image"), row.get("split") or "train"
            if not isinstance(image, str) or not image:
                raise UserError(f"manifest: {self.file}, line {line} names no image: column 'image' is its path")
            if split not in ("train", "val", "test"):
                raise UserError(f"manifest: {self.file}, line {line} has split '{split}': it is train, val or test")
            key = os.path.normpath(image)
            if key in seen:
                before, other = seen[key]
                where = f"lines {before} and {line}" + ("" if other == split else f", in splits {other} and {split}")
                raise UserError(f"manifest: {self.file} names the image {image} twice, {where}: keep one of them")
            seen[key] = line, split
            cells = {task: row[task] for task in self.columns if row.get(task) not in (None, "")}
            for task, cell in cells.items():
                if self.columns[task].task in _MAPS and not isinstance(cell, str):
                    raise UserError(f"manifest: {self.file}, line {line}: column '{task}' is the path of a label file, "
                                    f"not {cell!r}")
            self._names.setdefault(split, []).append(image)
            self._rows.setdefault(split, []).append({**cells, "": line})
        absent = [task for task in self.columns if task not in found]
        if not seen or absent:
            what = "has no samples" if not seen else f"has no column '{absent[0]}', which data.tasks describes"
            remedy = "" if not seen else ": rename one of them, or take it out of data.tasks"
            raise UserError(f"manifest: {self.file} {what}: it has {', '.join(sorted(found)) or 'nothing'}{remedy}")
        if "train" not in self._names:
            raise UserError(f"manifest: {self.file} has no sample of split train")
        if self.val_count:
            if "val" in self._names:
                raise UserError(f"manifest: val_count is {self.val_count}, and {self.file} has a split val: leave it "
                                "at 0")
            chosen = held_out("manifest", len(self._names["train"]), self.val_count, self.seed)
            for table in (self._names, self._rows):
                both = list(zip(table["train"], chosen, strict=True))
                table["val"] = [entry for entry, held in both if held]
                table["train"] = [entry for entry, held in both if not held]

    @property
    def _is_csv(self) -> bool:
        return self.file.suffix.lower() not in _JSONL

    def _refuse_unknown(self, unknown: Sequence[str], line: int, absent: Sequence[str]) -> None:
        """Raises UserError for columns that nothing describes, and names the tasks that have none."""
        name = unknown[0]
        without = f", and the table has no column for {', '.join(absent)}" if absent else ""
        near = closest(name, absent or self.columns)
        raise UserError(f"manifest: {self.file}, line {line} has a column '{name}' that data.tasks does not describe"
                        f"{near}{without}: describe it under that name, or leave it out with --data.tasks "
                        f"'{{{name}: null}}' beside the others")

    def _check_files(self) -> None:
        """Raises UserError for files that are named and missing."""
        listing = Listing(self.root)
        for split, names in self._names.items():
            missing = [name for name in names if name not in listing]
            labels = [cell for row in self._rows[split] for task, cell in row.items()
                      if task and self.columns[task].task in _MAPS and cell not in listing]
            for what, absent in (("images", missing), ("label files", labels)):
                if absent:
                    raise UserError(f"manifest: {len(absent)} {what} that {self.file} names in split {split} are not "
                                    f"in {self.root}: {some(absent)}. Set --data.root to the folder that paths are "
                                    "relative to")

    def _values(self, task: str, column: Column) -> dict[str, np.ndarray]:
        """Targets by image of a task that has its values in the table."""
        read, values = value_reader(column), {}
        for split, names in self._names.items():
            for name, row in zip(names, self._rows[split], strict=True):
                if task in row:
                    try:
                        values[name] = read(row[task])
                    except (ValueError, TypeError) as error:
                        raise UserError(f"manifest: {self.file}, line {row['']}, column '{task}': {error}") from error
        return values


def _column(name: str, given: Any) -> Column:
    """What ``tasks`` says of a column.

    Raises:
        UserError: an unknown option, or classes are missing.
    """
    given = {} if given is None else given
    if not isinstance(given, dict):
        raise UserError(f"manifest: task '{name}' is described by {given!r}: write {name}: {{classes: [sky, ground]}}")
    for option in given:
        if option not in _OPTIONS:
            raise UserError(f"manifest: task '{name}' has no option '{option}'{closest(option, _OPTIONS)}: there are "
                            f"{', '.join(_OPTIONS)}")
    kind = given.get("task", name)
    if kind not in (*_MAPS, *_VALUES):
        raise UserError(f"manifest: column '{name}' is of no known task ('{kind}')"
                        f"{closest(str(kind), _MAPS + _VALUES)}: choose one of {', '.join(_MAPS + _VALUES)}")
    if name in _OWN:
        raise UserError(f"manifest: a task cannot be called '{name}': that column has a meaning of its own")
    for option in given:
        if option != "task" and kind not in _TAKES[option]:
            raise UserError(f"manifest: task '{name}' is {kind}, for which '{option}' has no effect: leave it out")
    classes = given.get("classes") or []
    if kind in _CLASSED and not classes:
        raise UserError(f"manifest: task '{name}' needs the names of its classes: {name}: {{classes: [sky, ground]}}")
    if not isinstance(classes, list | tuple) or len(set(map(str, classes))) < len(classes):
        raise UserError(f"manifest: task '{name}': classes is {classes!r}: it is a list of different names")
    ignored = given.get("ignored")
    try:
        column = Column(kind, tuple(str(one) for one in classes), int(given.get("first", 0)),
                        None if ignored is None else tuple(
                            int(one) for one in (ignored if isinstance(ignored, list | tuple) else [ignored])),
                        float(given.get("scale", 1.0)))
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"manifest: task '{name}': {error}") from error
    if not 0 <= column.first <= _LARGEST or max(column.ignored or [0]) > _LARGEST:
        raise UserError(f"manifest: task '{name}': first is from 0 to {_LARGEST}, and ignored numbers are at most that")
    if not 0 < column.scale < math.inf:
        raise UserError(f"manifest: task '{name}': scale is {column.scale:g}: it must be above 0")
    return column


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and cells of each line.

    Raises:
        UserError: it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"manifest: the table {path} cannot be read ({error}): give a CSV or JSONL file") from error
    if path.suffix.lower() in _JSONL:
        for line, content in enumerate(text.split("\n"), 1):
            if not content.strip():
                continue
            try:
                row = json.loads(content)
            except json.JSONDecodeError as error:
                raise UserError(f"manifest: {path}, line {line} is not JSON ({error.msg})") from error
            if not isinstance(row, dict):
                raise UserError(f"manifest: {path}, line {line} is not an object {{…}}")
            yield line, row
        return
    reader = csv.DictReader(io.StringIO(text), restkey="", restval="", delimiter=_separator(text), strict=True)
    try:
        names = reader.fieldnames or []
        if len(set(names)) < len(names) or "image" not in names:
            raise UserError(f"manifest: {path} begins with '{','.join(names)[:80]}': the first line names the columns, "
                            "each once, and one of them is image")
        for row in reader:
            if "" in row:
                raise UserError(f"manifest: {path}, line {reader.line_num} has more cells than the {len(names)} "
                                "columns")
            yield reader.line_num, {name: cell.strip() for name, cell in row.items()}
    except csv.Error as error:
        raise UserError(f"manifest: {path}, line {reader.line_num}: {error}") from error


def _separator(text: str) -> str:
    """What stands between the cells: a comma, or a semicolon or tab where only that makes a column ``image``."""
    first = text.split("\n", 1)[0].strip()
    for separator in ",;\t":
        if "image" in [name.strip('" ') for name in first.split(separator)]:
            return separator
    return ","
