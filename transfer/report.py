"""Figures and ``report.html`` of transfer runs and of comparisons."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from harness.config import as_dict
from harness.report import Curves, Section, write_report
from harness.run import Run, read_metrics
from harness.table import Table
from transfer.results import joined_singles
from transfer.strategies.registry import BALANCES
from transfer.strategy_figures import draw_losses, draw_many, draw_strategy, relative, series
from transfer.strategy_table import strategy_section
from transfer.table import build_table
from transfer.units import decimals, heading_of, unit_of

_ROOM, _LETTER, _SPACE = 1150, 7.6, 26
"""Width of a table that a page shows without scrolling, and of a letter and the space between columns, pixels."""


def write_transfer_report(run: Run, results: dict[str, Any], singles: dict[str, dict[str, Any]] | None) -> None:
    """``report.html`` of one run: table, the panels drawn before, curves, every metric, configuration."""
    rows = [*([joined_singles(singles)] if singles else []), results]
    panels = run.figures / "panels.png"
    log, tasks = read_metrics(run.folder), [*run.config.tasks, *run.config.auxiliary]
    strategy = strategy_section([{**results, "folder": run.folder}], "Strategy")
    curves = _curves(log, run.figures, tasks, results)
    if strategy is not None:
        strategy.figures = list(draw_strategy(log, run.figures, tasks, _seen(run.config)))
    sections = [
        table_section("Result", build_table(rows), _reference(results)),
        Section("Predictions", figures=[(panels, f"Truth and prediction of each task, {results['split']} split")]),
        *([Section("Curves", figures=curves)] if curves else []),
        *([strategy] if strategy is not None else []),
        Section("All metrics", header=("task", "metric", "value", *(["single-task"] if results["single_task"] else [])),
                rows=_metric_rows(results)),
        Section("Configuration", code=yaml.safe_dump(as_dict(run.config), sort_keys=False)),
    ]
    write_report(run.folder / "report.html", f"Transfer {results['name']}", sections,
                 f"{results['architecture']} on {results['dataset']}, {results['backbone']} from "
                 f"{results['weights'] or 'random weights'}")


def table_section(title: str, table: Table, text: str = "") -> Section:
    """A results table as a section of the page, the best of a column marked."""
    cells = table.cells(lambda cell: f"{cell} *")
    width = sum(max(map(len, column)) * _LETTER + _SPACE for column in zip(*cells, strict=True))
    if width > _ROOM and len(cells) < len(cells[0]):
        table = dataclasses.replace(table, turned=not table.turned)
        cells = table.cells(lambda cell: f"{cell} *")
    marked = any(cell.endswith(" *") for row in cells[1:] for cell in row)
    paragraphs = [text, f"* the best of its {'row' if table.turned else 'column'}" if marked else ""]
    return Section(title, [part for part in paragraphs if part], header=cells[0], rows=cells[1:])


def _reference(results: dict[str, Any]) -> str:
    """What the figures are relative to."""
    head = results.get("single_task_head") if results["single_task"] else None
    return f"Relative to single-task networks (ST), for dense tasks with head {head}." if head else ""


def _curves(log: list[dict[str, Any]], folder: Path, tasks: list[str],
            results: dict[str, Any]) -> list[tuple[Path, str]]:
    """Losses; validation where there was one; the learning rate; nothing of which there is a single point."""
    losses = draw_losses(log, folder, tasks)
    figures = [(losses, "Losses, every logged step")] if losses is not None else []
    validated = series(log, lambda line: {task: next(iter(metrics.values())) for task, metrics in line["val"].items()}
                       if "val" in line else None, tasks)
    panels: dict[str, Any] = {}
    if validated is not None and validated.few:
        metrics = next(line["val"] for line in log if "val" in line)
        for task, values in zip(validated.names, validated.values.T, strict=True):
            known = np.isfinite(values)
            metric = next(iter(metrics.get(task, [""])))
            title = f"{task} {heading_of(metric, unit_of([results], task, metric))}, validation"
            if known.sum() >= 2:
                panels[title] = {task: (validated.steps[known], values[known])}
    elif validated is not None:
        path = draw_many(relative(validated), "metric, relative to the first one", folder / "validation.png")
        figures.append((path, "Validation"))
    rates = [(line["step"], line["lr"]) for line in log if "lr" in line]
    if len(rates) >= 2:
        panels["learning rate"] = {"lr": tuple(zip(*rates, strict=True))}
    caption = "Validation, and the learning rate" if len(panels) > 1 else "The learning rate"
    return [*figures, *([(Curves(panels).draw(folder / "curves.png"), caption)] if panels else [])]


def _seen(config: Any) -> str:
    """What a balance on gradients takes them with respect to."""
    common = config.balance.common
    level = (common and common.level) or getattr(BALANCES.get(config.balance.name), "level", "")
    return {"params": "all shared parameters", "last": "the last shared layer",
            "representation": "the representation that all tasks read"}.get(level, "")


def _metric_rows(results: dict[str, Any]) -> list[tuple[Any, ...]]:
    single = results["single_task"]
    rows = []
    for task, metrics in results["metrics"].items():
        for metric, value in metrics.items():
            unit = unit_of([results], task, metric)
            figures = [value, *([single[task].get(metric)] if single else [])]
            rows.append((task, heading_of(metric, unit), *(_number(figure, decimals(unit)) for figure in figures)))
    return rows


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"
