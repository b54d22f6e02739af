"""Units and decimals of the figures in ``results.json``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from transfer.metrics.units import DECIMALS, PLAIN
from transfer.tasks.base import TASKS


def unit_of(results: Iterable[Mapping[str, Any]], task: str, metric: str) -> str:
    """The unit that a task's kind states for its metric.

    Args:
        results: contents of ``results.json`` files; the first that says what kind of task it is counts.
        task: its name; ``*`` is any task that has the metric.
        metric: name of the metric.

    Returns:
        Empty for a metric without a unit, and where no result says which kind of task it is.
    """
    labels = [label for result in results for name, label in (result.get("labels") or {}).items()
              if task in (name, "*")]
    for kind in (label.get("task") for label in labels):
        if kind in TASKS.names() and metric in (units := TASKS.get(kind).units):
            return units[metric]
    return PLAIN


def heading_of(metric: str, unit: str) -> str:
    """``RMSE [m]``."""
    return f"{metric} [{unit}]" if unit else metric


def decimals(unit: str) -> int:
    """How many decimals a figure of this unit is shown with."""
    return DECIMALS.get(unit, DECIMALS[PLAIN])
