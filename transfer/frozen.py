"""What ``pretrain.evaluate`` found of the backbones that runs started from."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import UserError

Frozen = Mapping[str, Mapping[str, float]]
"""For the digest of a backbone's file, its figures by their heading in tables."""


def is_evaluation(folder: str | Path) -> bool:
    """Whether a folder is one of ``pretrain.evaluate``."""
    path = Path(folder) / "results.json"
    return path.is_file() and _read(path).get("kind") == "evaluation"


def read_frozen(folders: list[Path]) -> dict[str, dict[str, float]]:
    """Figures of frozen features by the digest of the backbone's file.

    Args:
        folders: of evaluations. Where two have measured the same, the later one counts.

    Raises:
        UserError: a file is damaged.
    """
    found: dict[str, dict[str, float]] = {}
    measurements = [m for folder in folders for m in _read(folder / "results.json")["measurements"] if m["digest"]]
    several = len({m["data"] for m in measurements if m["data"]}) > 1
    for measurement in measurements:
        figures = found.setdefault(measurement["digest"].split("-")[0], {})
        for name, heading in measurement["columns"].items():
            value = measurement["metrics"].get(name)
            if isinstance(value, int | float) and math.isfinite(value):
                where = f" ({measurement['data']})" if several and measurement["data"] else ""
                arrow = "" if name in measurement["descriptive"] else " ↑"
                figures[f"frozen: {heading}{where}{arrow}"] = float(value)
    return found


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
