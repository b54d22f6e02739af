"""Figures and ``report.html`` of transfer runs and of comparisons."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from harness.config import as_dict
from harness.report import Curves, Section, pyplot, save_figure, write_report
from harness.run import Run, read_metrics
from harness.table import Table
from transfer.data.loading import Evaluated
from transfer.engine import Transfer
from transfer.results import joined_singles
from transfer.strategies.registry import BALANCES
from transfer.strategy_figures import draw_losses, draw_many, draw_strategy, relative, series
from transfer.strategy_table import strategy_section
from transfer.table import build_table
from transfer.units import decimals, heading_of, unit_of


def write_transfer_report(run: Run, results: dict[str, Any], singles: dict[str, dict[str, Any]] | None) -> None:
    """``report.html`` of one run: table, the panels drawn before, curves, every metric, configuration."""
    rows = [*([joined_singles(singles)] if singles else []), results]
    panels = run.figures / "panels.png"
    log, tasks = read_metrics(run.folder), [*run.config.tasks, *run.config.auxiliary]
    strategy = strategy_section([{**results, "folder": run.folder}], "Strategy")
    if strategy is not None:
        strategy.figures = list(draw_strategy(log, run.figures, tasks, _seen(run.config)))
    sections = [
        table_section("Result", build_table(rows), _reference(results)),
        Section("Predictions", figures=[(panels, f"Image, then truth and prediction of each task, "
                                                 f"{results['split']} split")]),
        Section("Curves", figures=_curves(log, run.figures, tasks)),
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
    marked = any(cell.endswith(" *") for row in cells[1:] for cell in row)
    paragraphs = [text, "* the best of its column" if marked else ""]
    return Section(title, [part for part in paragraphs if part], header=cells[0], rows=cells[1:])


def _reference(results: dict[str, Any]) -> str:
    """What the figures are relative to."""
    head = results.get("single_task_head")
    return f"Relative to single-task networks (ST), for dense tasks with head {head}." if head else ""


def draw_panels(transfer: Transfer, path: Path) -> Path:
    """A row for each of some images: image, then truth and prediction of every dense task."""
    config, plt = transfer.config, pyplot()
    samples = Evaluated(transfer.data.split(config.evaluation.split), config.evaluation.size)
    chosen = np.linspace(0, len(samples) - 1, min(config.evaluation.panels, len(samples))).round().astype(int)
    dense = [name for name in config.tasks if transfer.tasks[name].dense]
    words = [name for name in config.tasks if not transfer.tasks[name].dense]
    titles = ["image", *(f"{name}, {kind}" for name in dense for kind in ("truth", "prediction"))]
    figure, axes = plt.subplots(len(chosen), len(titles), figsize=(1.9 * len(titles), 2.0 * len(chosen)),
                                squeeze=False)
    training = transfer.model.training
    transfer.model.eval()
    for row, index in enumerate(chosen):
        sample = samples[int(index)]
        image = torch.from_numpy(sample["image"]).permute(2, 0, 1)[None].to(transfer.world.device)
        with torch.no_grad():
            predictions = transfer.model(transfer.network.normalise(image), config.tasks).predictions
        pictures = [np.broadcast_to(sample["image"], (*sample["image"].shape[:2], 3))]
        for name in dense:
            task, truth = transfer.tasks[name], sample["targets"].get(name)
            array = task.from_prediction(predictions[name][0])
            blank = np.full(pictures[0].shape, 255, np.uint8)
            pictures += [blank if truth is None else task.picture(truth, truth), task.picture(array, truth)]
        for axis, picture in zip(axes[row], pictures, strict=True):
            axis.imshow(picture)
        captions = [_words(transfer, name, sample, predictions) for name in words]
        axes[row][0].set_xlabel("\n".join(captions), fontsize=6)
    transfer.model.train(training)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=8)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_frame_on(False)
    figure.tight_layout(pad=0.4)
    return save_figure(figure, path)


def _words(transfer: Transfer, name: str, sample: Any, predictions: dict[str, torch.Tensor]) -> str:
    task, truth = transfer.tasks[name], sample["targets"].get(name)
    found = task.caption(task.from_prediction(predictions[name][0]))
    return f"{name}: {found}" + (f" (truth: {task.caption(truth)})" if truth is not None else "")


def _curves(log: list[dict[str, Any]], folder: Path, tasks: list[str]) -> list[tuple[Path, str]]:
    """Losses; validation where there was one; the learning rate."""
    losses = draw_losses(log, folder, tasks)
    figures = [(losses, "Losses, every logged step")] if losses is not None else []
    validated = series(log, lambda line: {task: next(iter(metrics.values())) for task, metrics in line["val"].items()}
                       if "val" in line else None, tasks)
    panels: dict[str, Any] = {}
    if validated is not None and validated.few:
        metrics = next(line["val"] for line in log if "val" in line)
        for task, values in zip(validated.names, validated.values.T, strict=True):
            known = np.isfinite(values)
            title = f"{task} {next(iter(metrics.get(task, [''])))}, validation"
            panels[title] = {task: (validated.steps[known], values[known])}
    elif validated is not None:
        path = draw_many(relative(validated), "metric, relative to the first one", folder / "validation.png")
        figures.append((path, "Validation"))
    rates = [(line["step"], line["lr"]) for line in log if "lr" in line]
    if rates:
        panels["learning rate"] = {"lr": tuple(zip(*rates, strict=True))}
    caption = "Validation, and the learning rate" if len(panels) > 1 else "The learning rate"
    return [*figures, (Curves(panels).draw(folder / "curves.png"), caption)]


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
