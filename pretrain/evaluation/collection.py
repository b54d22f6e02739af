"""The folder of an evaluation: one file for each measurement, and all of them in one table."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.files import write_text
from harness.run import encode
from harness.table import Column, Table

MEASUREMENTS = "measurements"
Measurement = Mapping[str, Any]
"""checkpoint, source, digest, architecture, protocol, options, data, fingerprint, seed, metrics, columns,
descriptive, figures, files, remarks, tables, seconds."""


def read_measurements(folders: Iterable[str | Path]) -> list[Measurement]:
    """Everything that was measured into some folders, in the order in which it was asked for.

    Raises:
        UserError: a folder without any measurement, or one that is damaged.
    """
    found: list[Measurement] = []
    for folder in map(Path, folders):
        path = folder / "results.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(f"{folder} has no results.json ({error.strerror}): give the folder of an evaluation") from (
                error)
        except ValueError as error:
            raise UserError(f"{path} is damaged ({error}): measure again into a new folder") from error
        if not isinstance(content, dict) or content.get("kind") != "evaluation":
            raise UserError(f"{path} is not of an evaluation: give the folder of one")
        found += [{**measurement, "folder": str(folder)} for measurement in content["measurements"]]
    return found


def write_results(folder: Path, measurements: Sequence[Measurement]) -> None:
    """``results.json`` of an evaluation's folder."""
    plain = [{key: value for key, value in measurement.items() if key != "folder"} for measurement in measurements]
    write_text(folder / "results.json", encode({"kind": "evaluation", "measurements": plain}, indent=2) + "\n")


def build_table(measurements: Sequence[Measurement]) -> Table:
    """A row for each checkpoint, a column for each protocol's metrics on each set of images.

    Seeds of the same checkpoint's measurement become mean ± standard deviation.
    """
    if not measurements:
        raise UserError("there is nothing to compare: measure something first")
    rows = list(dict.fromkeys((m["checkpoint"], m["architecture"] or "–") for m in measurements))
    sets = list(dict.fromkeys(m["data"] for m in measurements if m["data"]))
    columns = []
    for protocol, data in dict.fromkeys((m["protocol"], m["data"]) for m in measurements):
        some = [m for m in measurements if (m["protocol"], m["data"]) == (protocol, data)]
        headings = {name: heading for m in some for name, heading in m["columns"].items()}
        where = f" ({data})" if len(sets) > 1 and data else ""
        for name, heading in headings.items():
            values = [[float(m["metrics"][name]) for m in some
                       if (m["checkpoint"], m["architecture"] or "–") == row and _is_number(m["metrics"].get(name))]
                      for row in rows]
            higher = None if all(name in m["descriptive"] for m in some) else True
            columns.append(Column(f"{heading}{where}{' ↑' if higher else ''}", values, 1, higher))
    if len({architecture for _, architecture in rows}) == 1:
        return Table(("Checkpoint",), [row[:1] for row in rows], columns)
    return Table(("Checkpoint", "Architecture"), rows, columns)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
