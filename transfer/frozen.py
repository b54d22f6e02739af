"""What ``pretrain.evaluate`` found of the backbones that runs started from."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from harness.errors import UserError
from harness.table import particulars

Frozen = Mapping[str, Mapping[str, float]]
"""For the digest of a backbone's file, its figures by their heading in tables."""


def is_evaluation(folder: str | Path) -> bool:
    """Whether a folder is one of ``pretrain.evaluate``."""
    path = Path(folder) / "results.json"
    return path.is_file() and _read(path).get("kind") == "evaluation"


def read_frozen(folders: list[Path]) -> dict[str, dict[str, float]]:
    """Figures of frozen features by the digest of the backbone's file.

    Args:
        folders: of evaluations. Where two have measured the same, the later one counts; several seeds become their
            mean, and figures that were measured otherwise have headings of their own.

    Raises:
        UserError: a file is damaged.
    """
    measured = [m for folder in folders for m in _read(folder / "results.json")["measurements"] if m["digest"]]
    several = len({m["data"] for m in measured if m["data"]}) > 1
    kinds: dict[tuple[str, str | None], list[Mapping[str, Any]]] = {}
    for m in measured:
        kinds.setdefault((m["protocol"], m["data"]), []).append(m)
    values: dict[str, dict[str, dict[int, float]]] = {}  # of a backbone, of a heading: by seed
    for (_, data), alike in kinds.items():
        settings = [{**m.get("options", {}), **{f"features.{key}": value for key, value in
                     (m.get("features") or {}).items()}, "images": m.get("fingerprint")} for m in alike]
        for measurement, particular in zip(alike, particulars(settings), strict=True):
            figures = values.setdefault(measurement["digest"].split("-")[0], {})
            where = "; ".join(filter(None, (data if several else None, particular)))
            for name, heading in measurement["columns"].items():
                value = measurement["metrics"].get(name)
                if isinstance(value, int | float) and math.isfinite(value):
                    arrow = "" if name in measurement["descriptive"] else " ↑"
                    title = f"frozen: {heading}{f' ({where})' if where else ''}{arrow}"
                    figures.setdefault(title, {})[measurement.get("seed", 0)] = float(value)
    return {digest: {heading: fmean(seeds.values()) for heading, seeds in figures.items()}
            for digest, figures in values.items()}


def backbone_digest(folder: Path) -> str | None:
    """The digest of the weights that a run started from, as its folder has it; None for random ones."""
    path = folder / "identity.json"
    digest = _read(path).get("weights") if path.is_file() else None
    return digest if isinstance(digest, str) else None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): make it again, or leave its folder out") from error
    return content if isinstance(content, dict) else {}
