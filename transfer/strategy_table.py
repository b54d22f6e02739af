"""The strategies of runs side by side: what was chosen, and what their logs measured of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from harness.config import option_defaults
from harness.errors import UserError
from harness.registry import Registry
from harness.report import Section
from harness.run import read_metrics
from transfer.strategies.base import BalanceConfig
from transfer.strategies.groups import ScheduleConfig
from transfer.strategies.registry import BALANCES, PARTITIONS, SCHEDULES
from transfer.strategy_figures import strategy_measures

PARTS: dict[str, tuple[Registry, type | None]] = {
    "balance": (BALANCES, BalanceConfig), "schedule": (SCHEDULES, ScheduleConfig), "partition": (PARTITIONS, None)}
PLAIN = {"balance": "equal", "schedule": "shared", "partition": "full"}
#: Heading, how a value is written, and what the value is multiplied by.
MEASURES = {"mean_cosine": ("mean cosine", "+.3f", 1), "conflicts": ("pairs in conflict [%]", ".1f", 100),
            "covered_distance": ("covered distance", ".4g", 1), "shortest_path": ("shortest path", ".4g", 1),
            "distance_ratio": ("covered / shortest", ".2f", 1), "visited": ("filters visited [%]", ".1f", 100)}


def strategy_section(results: Sequence[Mapping[str, Any]], title: str = "Strategies") -> Section | None:
    """A table with a row for each run that has a folder; None where all are plain sums and nothing was measured.

    Cosines and conflicts are means over the logged steps, distances and visits those of the end.

    Args:
        results: contents of ``results.json`` files, with their ``folder``.
        title: of the section.
    """
    runs = [result for result in results if result.get("folder")]
    chosen = [strategy_of(result) for result in runs]
    found = [strategy_measures(read_metrics(result["folder"])) for result in runs]
    if all(parts == PLAIN for parts in chosen) and not any(found):
        return None
    shown = {key: style for key, style in MEASURES.items() if any(key in values for values in found)}
    alone = len(runs) == 1
    header = [*([] if alone else ["run"]), *PARTS, *(heading for heading, _, _ in shown.values()), "step [ms]"]
    rows = [[*([] if alone else [result["name"]]), *parts.values(),
             *(f"{values[key] * scale:{style}}" if key in values else "–"
               for key, (_, style, scale) in shown.items()),
             f"{1000 * result['step_seconds']:.1f}" if result.get("step_seconds") else "–"]
            for result, parts, values in zip(runs, chosen, found, strict=True)]
    return Section(title, header=header, rows=rows)


def strategy_of(result: Mapping[str, Any]) -> dict[str, str]:
    """The three parts of a run's strategy, each with the options that are not the defaults."""
    try:
        config = yaml.safe_load((Path(result["folder"]) / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        config = None
    told = {}
    for part, (registry, common) in PARTS.items():
        name = str((result.get("strategy") or {}).get(part, "–"))
        options = config.get(part) if isinstance(config, dict) else None
        told[part] = name if not isinstance(options, dict) else ", ".join([name, *_changed(options, registry, common)])
    return told


def unusual_parts(result: Mapping[str, Any]) -> list[str]:
    """Names of the parts of a run's strategy that are not those of the plain sum."""
    strategy = result.get("strategy") or {}
    return [strategy[part] for part, plain in PLAIN.items() if strategy.get(part, plain) != plain]


def _changed(options: Mapping[str, Any], registry: Registry, common: type | None) -> list[str]:
    """``["alpha 0.5", …]``; of a part that this program does not know, all options."""
    try:
        defaults = dict(option_defaults(registry.get(options["name"])))
    except (KeyError, UserError):
        defaults = {}
    if common is not None:
        defaults |= {field.name: getattr(common(), field.name) for field in dataclasses.fields(common)}
    defaults["track_distance"] = options.get("track_distance")  # it only measures
    return [f"{key} {value}" for key, value in options.items()
            if key != "name" and (key not in defaults or defaults[key] != value)]
