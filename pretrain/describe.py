"""What a checkpoint holds, as data and as a table to read."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from pretrain.formats.base import Part

_EMPTY = "(nothing)"


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint holds.

    Attributes:
        format: name of the layout.
        architecture: timm name, from the file or by comparison; none if nothing known fits.
        encoder_prefix: what the backbone's keys start with.
        matched: the backbone's keys that the architecture takes.
        missing: the architecture's keys that the file lacks or has in another shape.
        unexpected: the file's keys that the backbone does not take (heads, momentum encoders, queues, …).
        resized: the backbone's keys that are resized to fit (position embeddings).
        path: of the file.
        kind: of file, in words.
        architecture_from: where the architecture comes from, in words.
        values: numbers in the backbone's tensors together.
        parts: what the unexpected keys are.
        classes: of the classifier that ``keep_classifier=True`` would load; none without one.
        input: mean, std and input size of the images that the weights expect.
        training: what the file has beside weights, in words: epoch, optimizer, …
    """

    format: str
    architecture: str | None
    encoder_prefix: str
    matched: list[str]
    missing: list[str]
    unexpected: list[str]
    resized: list[str] = field(default_factory=list)
    path: Path | None = None
    kind: str = ""
    architecture_from: str = ""
    values: int = 0
    parts: tuple[Part, ...] = ()
    classes: int | None = None
    input: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, str] = field(default_factory=dict)


def summary(values: Mapping[Any, Any]) -> dict[str, str]:
    """A few words for each entry of a training state."""
    return {str(key): _words(value) for key, value in values.items()}


def describe(info: CheckpointInfo) -> str:
    """A table of a checkpoint, to be printed."""
    lines = [str(info.path)]
    size = f", {_number(os.path.getsize(info.path), 'B')}" if info.path is not None else ""
    lines += _rows({
        "file": f"{info.kind}{size}",
        "format": info.format,
        "architecture": f"{info.architecture} ({info.architecture_from})" if info.architecture else "unknown",
        "input": _input(info.input),
    })
    own = str(len(info.matched) + len(_own(info)))
    parts = [("part", "keys", "numbers", "keys start with"),
             ("backbone", own, _number(info.values), info.encoder_prefix or "(no prefix)")]
    parts += [(part.role, str(len(part.keys)), _number(part.values), _start(part.keys)) for part in info.parts]
    widths = [max(len(row[column]) for row in parts) for column in range(3)]
    lines += ["", *(f"  {a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}  {d}" for a, b, c, d in parts), ""]
    lines += _rows({"classifier": f"{info.classes} classes; keep_classifier loads it" if info.classes else "none",
                    "training": _training(info.training), **_verdict(info)})
    return "\n".join(lines)


def _own(info: CheckpointInfo) -> list[str]:
    """Unexpected keys that belong to no part: of the backbone's own prefix."""
    known = {key for part in info.parts for key in part.keys}
    return [key for key in info.unexpected if key not in known]


def _verdict(info: CheckpointInfo) -> dict[str, str]:
    if info.architecture is None:
        return {"would load": "nothing: name the architecture (a timm name)"}
    wanted = len(info.matched) + len(info.missing)
    lacking = f"{_plural(len(info.missing), 'tensor')} missing or of another shape, so it is refused"
    share = lacking if info.missing else "everything"
    rows = {"would load": f"{len(info.matched)} of {wanted} tensors of {info.architecture}: {share}"}
    if info.resized:
        rows["resized"] = _some(info.resized)
    if info.missing:
        rows["missing"] = _some(info.missing)
    left = _own(info)
    if left:
        rows["left over"] = _some(left)
    return rows


def _input(values: Mapping[str, Any]) -> str:
    if not values:
        return "unknown"
    size = "×".join(str(side) for side in values.get("input_size", ()))
    mean, std = (" ".join(f"{value:g}" for value in values.get(key, ())) for key in ("mean", "std"))
    return f"{size} pixels, mean {mean}, std {std}"


def _training(values: Mapping[str, str]) -> str:
    shown = [f"{key} {value}".strip() for key, value in values.items() if value != _EMPTY]
    return ", ".join(shown[:8]) + (f", and {len(shown) - 8} more" if len(shown) > 8 else "") if shown else "none"


def _words(value: Any) -> str:
    if value is None or isinstance(value, bool | int | float):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if isinstance(value, str):
        return repr(value if len(value) <= 24 else value[:21] + "…")
    if isinstance(value, Tensor):
        return f"{list(value.shape)}"
    if isinstance(value, Namespace):
        return f"({_plural(len(vars(value)), 'option')})"
    if isinstance(value, Mapping) and isinstance(value.get("param_groups"), Sequence):
        return f"(state of {_plural(len(value.get('state') or ()), 'tensor')})"
    if isinstance(value, Mapping | Sequence):
        return f"({_plural(len(value), 'entry', 'entries')})" if len(value) else _EMPTY
    return ""


def _plural(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _start(keys: Sequence[str]) -> str:
    """What keys have in common, up to a dot; else the first of them."""
    common = os.path.commonprefix(list(keys))
    if len(keys) == 1 or not common:
        return keys[0] + (", …" if len(keys) > 1 else "")
    cut = common[: common.rfind(".") + 1]
    return cut if cut and not cut.endswith("module.") else common


def _some(keys: Sequence[str]) -> str:
    return f"{len(keys)}: " + ", ".join(keys[:4]) + (", …" if len(keys) > 4 else "")


def _number(value: float, unit: str = "") -> str:
    for step, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= step:
            return f"{value / step:.1f} {prefix}{unit}"
    return f"{value:.0f} {unit}".strip()


def _rows(rows: Mapping[str, str]) -> list[str]:
    return [f"  {name:<14}{value}" for name, value in rows.items()]
