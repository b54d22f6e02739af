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
from transfer.data.loading import Evaluated
from transfer.engine import Transfer
from transfer.results import joined_singles
from transfer.table import Table, build_table


def write_transfer_report(run: Run, results: dict[str, Any], singles: dict[str, dict[str, Any]] | None) -> None:
    """``report.html`` of one run: table, the panels drawn before, curves, every metric, configuration."""
    rows = [*([joined_singles(singles)] if singles else []), results]
    panels = run.figures / "panels.png"
    curves = Curves(_panels(read_metrics(run.folder))).draw(run.figures / "curves.png")
    sections = [
        table_section("Result", build_table(rows), _reference(results)),
        Section("Predictions", figures=[(panels, f"Image, then truth and prediction of each task, "
                                                 f"{results['split']} split")]),
        Section("Curves", figures=[(curves, "Every logged step")]),
        Section("All metrics", header=("task", "metric", "value", *(["single-task"] if singles else [])),
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


def _panels(lines: list[dict[str, Any]]) -> dict[str, Any]:
    panels: dict[str, Any] = {}

    def series(title: str, label: str, pairs: list[tuple[int, float]]) -> None:
        if pairs:
            panels.setdefault(title, {})[label] = tuple(zip(*pairs, strict=True))

    names = [key for key in dict.fromkeys(key for line in lines for key in line) if key.startswith("loss_")]
    for key in names:
        task = key.removeprefix("loss_")
        series(f"loss of {task}", task, [(line["step"], line[key]) for line in lines if key in line])
    validated = [line for line in lines if "val" in line]
    for task in validated[0]["val"] if validated else []:
        metric = next(iter(validated[0]["val"][task]))
        series(f"{task} {metric}, validation", metric,
               [(line["step"], line["val"][task][metric]) for line in validated
                if line["val"][task][metric] is not None])
    series("learning rate", "lr", [(line["step"], line["lr"]) for line in lines if "lr" in line])
    return panels


def _metric_rows(results: dict[str, Any]) -> list[tuple[Any, ...]]:
    single = results["single_task"]
    return [(task, metric, _number(value), *([_number(single[task][metric])] if single else []))
            for task, metrics in results["metrics"].items() for metric, value in metrics.items()]


def _number(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.4g}"
