"""The folder of an evaluation: one file for each measurement, and all of them in one table."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.config import digest, identity, option_defaults
from harness.errors import UserError
from harness.files import write_text
from harness.run import encode
from harness.table import Column, Table, particulars

MEASUREMENTS = "measurements"
Measurement = Mapping[str, Any]
"""checkpoint, source, digest, architecture, protocol, options, data, seen, fingerprint, seed, metrics, columns,
descriptive, figures, files, remarks, tables, seconds."""


def read_measurements(folders: Iterable[str | Path]) -> list[Measurement]:
    """Everything that was measured into some folders, in the order in which it was asked for.

    A measurement that several of them have is one. Of an evaluation that was stopped, what is finished counts.

    Raises:
        UserError: a folder without any measurement, or one that is damaged.
    """
    found: dict[tuple[str, str], Measurement] = {}
    for folder in map(Path, folders):
        for measurement in _of(folder):
            found.setdefault((measurement["id"], measurement["checkpoint"]), {**measurement, "folder": str(folder)})
    return list(found.values())


def _of(folder: Path) -> list[Measurement]:
    """The measurements of one folder."""
    path, found = folder / "results.json", []
    if path.exists():
        content = _read(path)
        if not isinstance(content, dict) or content.get("kind") != "evaluation":
            raise UserError(f"{path} is not of an evaluation: give the folder of one")
        found = content["measurements"]
    files = sorted(folder.glob(f"{MEASUREMENTS}/*/measurement.json"), key=lambda file: (file.stat().st_mtime, file))
    known = {measurement["id"] for measurement in found}
    found += [measurement for measurement in map(_read, files) if measurement["id"] not in known]
    if not found:
        raise UserError(f"{folder} has no results.json and no finished measurement: give the folder of an evaluation")
    return found


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} is damaged ({reason}): measure again into a new folder") from error


def told_apart(measurements: Sequence[Measurement]) -> list[Measurement]:
    """The same with checkpoints that are called alike but are not, named by the beginning of their hash too.

    A run that was trained further since is one; what was measured with different seeds may be one method's.
    """
    contents: dict[tuple[str, int], set[str]] = {}
    for m in measurements:
        contents.setdefault((m["checkpoint"], m["seed"]), set()).add(m["digest"])
    alike = {name for (name, _), digests in contents.items() if len(digests) > 1}
    return [{**m, "checkpoint": f"{m['checkpoint']} ({m['digest'][:6]})"} if m["checkpoint"] in alike else m
            for m in measurements]


def write_results(folder: Path, measurements: Sequence[Measurement]) -> None:
    """``results.json`` of an evaluation's folder."""
    plain = [{key: value for key, value in measurement.items() if key != "folder"} for measurement in measurements]
    write_text(folder / "results.json", encode({"kind": "evaluation", "measurements": plain}, indent=2) + "\n")


def build_table(measurements: Sequence[Measurement]) -> Table:
    """A row for each checkpoint, a column for each protocol's metrics on each set of images; turned where that is wide.

    Seeds of the same checkpoint's measurement become mean ± standard deviation; measurements with other options, other
    features or other images have columns of their own. What looks at no checkpoint stands in a row of its own.
    """
    if not measurements:
        raise UserError("there is nothing to compare: measure something first")
    measurements = told_apart(measurements)
    rows = list(dict.fromkeys(map(_row, measurements)))
    sets = list(dict.fromkeys(m["data"] for m in measurements if m["data"]))
    columns = []
    for protocol, data in dict.fromkeys((m["protocol"], m["data"]) for m in measurements):
        for variant, some in _variants([m for m in measurements if (m["protocol"], m["data"]) == (protocol, data)]):
            headings = {name: heading for m in some for name, heading in m["columns"].items()}
            where = "; ".join(filter(None, (data if len(sets) > 1 else None, variant)))
            for name, heading in headings.items():
                values = [[float(m["metrics"][name]) for m in some
                           if _row(m) == row and _is_number(m["metrics"].get(name))] for row in rows]
                higher = None if all(name in m["descriptive"] for m in some) else True
                columns.append(Column(f"{heading}{f' ({where})' if where else ''}{' ↑' if higher else ''}", values, 1,
                                      higher))
    turned = len(columns) > max(4, len(rows))  # what is wide and low is read better upright
    if len({architecture for checkpoint, architecture in rows if checkpoint != _NONE}) < 2:
        return Table(("Checkpoint",), [row[:1] for row in rows], columns, turned)
    return Table(("Checkpoint", "Architecture"), rows, columns, turned)


_NONE = "–"


def _row(measurement: Measurement) -> tuple[str, str]:
    return measurement["checkpoint"] or _NONE, measurement["architecture"] or _NONE


def _variants(measurements: Sequence[Measurement]) -> list[tuple[str, list[Measurement]]]:
    """Measurements by one protocol on one set, those that were made alike together.

    Each group comes with what is particular about it: of the settings in which the groups differ, those that are not as
    they are when nobody says anything.
    """
    settings = [{**m["options"], **{f"features.{key}": value for key, value in (m.get("features") or {}).items()},
                 "images": _shortened(m.get("fingerprint") or "")} for m in measurements]
    alike = all(setting == settings[0] for setting in settings)
    texts = particulars(settings, {} if alike else _defaults(measurements[0]["protocol"]))
    inputs = [digest(m.get("inputs")) for m in measurements]
    groups: dict[str, list[Measurement]] = {}
    for measurement, text, content in zip(measurements, texts, inputs, strict=True):
        if len({other for other, same in zip(inputs, texts, strict=True) if same == text}) > 1:
            text = ", ".join(filter(None, (text, f"content {content}")))
        groups.setdefault(text, []).append(measurement)
    return list(groups.items())


def _shortened(fingerprint: str) -> str:
    return fingerprint if len(fingerprint) <= 40 else f"{fingerprint[:24]}…{digest(fingerprint)}"


def _defaults(protocol: str) -> dict[str, Any]:
    """What the options of a protocol and of features are when nobody says anything; of an unknown one, nothing."""
    from pretrain.evaluation.base import PROTOCOLS
    from pretrain.evaluation.features import FeatureConfig

    known = option_defaults(PROTOCOLS.get(protocol)) if protocol in PROTOCOLS else {}
    return {**known, **{f"features.{key}": value for key, value in identity(FeatureConfig()).items()}}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
