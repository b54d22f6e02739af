"""One table out of the results of several runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.errors import UserError
from harness.table import Column, Table
from transfer.frozen import Frozen
from transfer.units import decimals, heading_of, unit_of

Result = Mapping[str, Any]


def build_table(results: Iterable[Result], frozen: Frozen | None = None) -> Table:
    """Arrange results, seeds of the same run together, in the order in which they first come.

    Args:
        results: contents of ``results.json`` files.
        frozen: figures of frozen features by the digest of the backbone that runs started from.

    Returns:
        One row for each configuration. Columns that tell the rows apart, primary metrics with their
        direction, Δ_MTL, parameters and multiply-adds, also relative to the sum of the single-task
        networks (ST), and training time.

    Raises:
        UserError: no results, or a task whose primary metric or direction differs between them.
    """
    groups = _group(results)
    described = [describe(group[0]) for group in groups]
    if len({tuple(row.values()) for row in described}) < len(groups):
        described = [{"Run": str(group[0].get("name", "")), **row}
                     for group, row in zip(groups, described, strict=True)]
    told = [key for key in described[0] if key == "Model" or len({row[key] for row in described}) > 1]
    if any(len(group) > 1 for group in groups):
        told.append("Seeds")
        described = [{**row, "Seeds": str(len(group))} for group, row in zip(groups, described, strict=True)]
    rows = [tuple(row[key] for key in told) for row in described]
    columns = [*task_columns(groups), *_frozen_columns(groups, frozen or {}), *_cost_columns(groups)]
    return Table(tuple(told), rows, columns, turned=len(columns) > max(12, len(rows)))


def describe(result: Result) -> dict[str, str]:
    """What tells a configuration from another: everything but the seed and the run's name."""
    strategy = result.get("strategy") or {}
    return {
        "Data": str(result.get("dataset", "")),
        "Model": str(result.get("architecture", "")),
        "Backbone": str(result.get("backbone", "")),
        "Weights": str(result.get("weights") or "random"),
        "Balance": str(strategy.get("balance", "–")),
        "Schedule": str(strategy.get("schedule", "–")),
        "Partition": str(strategy.get("partition", "–")),
        "Tasks": " ".join(result["metrics"]),
    }


def _group(results: Iterable[Result]) -> list[list[Result]]:
    """Runs that differ in the seed only, together: by their recipe where they state it."""
    groups: dict[tuple[str, ...], list[Result]] = {}
    for result in results:
        groups.setdefault((*describe(result).values(), str(result.get("recipe", ""))), []).append(result)
    if not groups:
        raise UserError("there are no results to compare: give finished runs")
    separate: list[list[Result]] = []
    for group in groups.values():
        # the same seed twice: they differ in something else (a rate, a schedule), so no mean of them
        same = len({result.get("seed") for result in group}) < len(group)
        separate += [[result] for result in group] if same else [group]
    return separate


def task_columns(groups: Sequence[Sequence[Result]]) -> list[Column]:
    """The primary metric of each task, for rows that are one list of results each.

    Raises:
        UserError: a task's primary metric or its direction differs between results.
    """
    shown: dict[str, tuple[str, bool]] = {}
    for result in (result for group in groups for result in group):
        for task, metric in result["primary"].items():
            new = (metric, bool(result["higher_is_better"][task]))
            if shown.setdefault(task, new) != new:
                raise UserError(f"task '{task}' is measured by {shown[task][0]} in one run and by {metric} "
                                f"in {result.get('name', 'another')}: compare them apart")
    columns = []
    for task, (metric, higher) in shown.items():
        values = [
            _numbers(result["metrics"].get(task, {}).get(metric) for result in group) for group in groups
        ]
        unit = unit_of((result for group in groups for result in group), task, metric)
        heading = f"{task} {heading_of(metric, unit)} {'↑' if higher else '↓'}"
        columns.append(Column(heading, values, decimals(unit), higher))
    return columns


def _frozen_columns(groups: Sequence[Sequence[Result]], frozen: Frozen) -> list[Column]:
    """What the backbones knew before they were trained further; a backbone counts once for all seeds from it."""
    used = [list(dict.fromkeys(result.get("weights_digest") for result in group)) for group in groups]
    headings = dict.fromkeys(heading for digests in used for digest in digests for heading in frozen.get(digest, {}))
    return [Column(heading, [_numbers(frozen.get(digest, {}).get(heading) for digest in digests) for digests in used],
                   1, True if heading.endswith("↑") else None) for heading in headings]


def _cost_columns(groups: Sequence[Sequence[Result]]) -> list[Column]:
    def column(heading: str, key: str, scale: float, digits: int, of: str = "", **style: Any) -> Column:
        values = [_numbers(((result.get(of) or {}) if of else result).get(key) for result in group)
                  for group in groups]
        return Column(heading, [[value * scale for value in row] for row in values], digits, **style)

    columns = [
        column("Δ_MTL [%] ↑", "delta_mtl", 1, 2, higher_is_better=True, signed=True),
        column("Params [M]", "parameters", 1e-6, 2, spread=False),
        column("Params vs ST [%]", "parameters", 1, 0, of="relative", signed=True, spread=False),
        column("MACs [G]", "macs", 1e-9, 2, spread=False),
        column("MACs vs ST [%]", "macs", 1, 0, of="relative", signed=True, spread=False),
        column("Time [min]", "train_seconds", 1 / 60, 1),
    ]
    compared = any(result.get("single_task") or result.get("architecture") == "single_task"
                   for group in groups for result in group)
    return [column for column in columns if any(column.values) and (compared or "vs ST" not in column.heading)]


def _numbers(values: Iterable[float | None]) -> list[float]:
    return [float(value) for value in values if value is not None]
