"""Figures of a sweep. Each function draws what there is to draw, and returns the path or None."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.config import as_dict
from harness.report import pyplot, save_figure
from transfer.sweeping.outcome import Outcome, Row
from transfer.sweeping.plan import SINGLE

MOST_BARS = 30
MOST_MAPS = 6
QUANTITIES = {"delta_mtl": "Δ_MTL [%]", "score": "normalised score", "rank": "average rank"}


def draw_profiles(outcome: Outcome, folder: Path) -> Path | None:
    """Share of each method's settings within τ of the best: of the quantity, and of each task's metric."""
    unit = {"delta_mtl": "points of Δ_MTL", "score": "normalised score", "rank": "places"}[outcome.quantity]
    panels = {QUANTITIES[outcome.quantity]: (outcome.losses(), f"τ [{unit}]")}
    panels |= {f"{task} {outcome.primary[task]}": (outcome.losses(task), "τ [% of the best]") for task in outcome.tasks}
    panels = {title: panel for title, panel in panels.items() if any(math.isfinite(loss) for row in panel[0].values()
                                                                    for loss in row)}
    if not panels or len(outcome.done) < 3:
        return None
    figure, axes = _grid_of(len(panels), 3.6, 3.0)
    colours = _colours(outcome)
    for axis, (title, (losses, label)) in zip(axes, panels.items(), strict=False):
        limit = max(loss for row in losses.values() for loss in row if math.isfinite(loss)) or 1.0
        for number, (method, row) in enumerate(losses.items()):
            steps = sorted(loss for loss in row if math.isfinite(loss))
            shares = [(i + 1) / len(row) for i in range(len(steps))]
            axis.step([0, *steps, limit * 1.05], [0, *shares, shares[-1] if shares else 0], where="post",
                      color=colours[method], label=method, linewidth=2.2 - 0.15 * min(number, 8), alpha=0.9)
        axis.set(xlabel=label, xlim=(0, limit * 1.05), ylim=(0, 1.03))
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.25)
    axes[0].set_ylabel("share of settings within τ of the best")
    _legend(figure, axes[0])
    return save_figure(figure, folder / "profile.png")


def draw_scatter(outcome: Outcome, folder: Path) -> Path | None:
    """Every setting by its metrics on two tasks, coloured by method (Vandenhende 2022, figure 6.1)."""
    pairs = list(itertools.combinations(outcome.tasks, 2))[:MOST_MAPS]
    if not pairs or len(outcome.done) < 2:
        return None
    figure, axes = _grid_of(len(pairs), 3.9, 3.5)
    colours = _colours(outcome)
    for axis, (a, b) in zip(axes, pairs, strict=False):
        for method, rows in outcome.methods.items():
            points = [(outcome.mean(row, a, outcome.guide), outcome.mean(row, b, outcome.guide)) for row in rows
                      if row.measured]
            points = [point for point in points if None not in point and all(map(math.isfinite, point))]
            if points:
                style = {"marker": "*", "s": 110, "zorder": 3} if method == SINGLE else {"marker": "o", "s": 34}
                axis.scatter(*zip(*points, strict=True), color=colours[method], label=method, alpha=0.8,
                             edgecolors="white", linewidths=0.5, **style)
        for task, line in ((a, axis.axvline), (b, axis.axhline)):
            reference = outcome.reference(outcome.done[0], task, outcome.guide) if outcome.criterion != "none" else None
            if reference is not None and math.isfinite(reference):
                line(reference, color="0.5", linestyle="--", linewidth=1)
        for task, flip in ((a, axis.invert_xaxis), (b, axis.invert_yaxis)):
            if not outcome.higher[task]:
                flip()
        axis.set(xlabel=f"{outcome.heading(a)}, better →", ylabel=f"{outcome.heading(b)}, better →")
        axis.grid(alpha=0.25)
    _legend(figure, axes[0])
    return save_figure(figure, folder / "scatter.png")


def draw_ranks(outcome: Outcome, folder: Path) -> Path | None:
    """Bars of the average rank, with a mark for the rank on each task."""
    from transfer.sweeping.measures import average_ranks

    rows = outcome.done
    if len(rows) < 2:
        return None
    plt, colours = pyplot(), _colours(outcome)
    values = {task: [outcome.mean(row, task, outcome.guide) for row in rows] for task in outcome.tasks}
    places = {task: average_ranks({task: values[task]}, outcome.higher) for task in outcome.tasks}
    order = sorted(range(len(rows)), key=lambda i: rows[i].rank)[:MOST_BARS]
    figure, axis = plt.subplots(figsize=(8.5, 1.1 + 0.27 * len(order)))
    for height, i in enumerate(order):
        axis.barh(height, rows[i].rank, color=colours[rows[i].method], alpha=0.75, height=0.72)
    for marker, (task, ranks) in zip(itertools.cycle("osD^vP*X"), places.items(), strict=False):
        axis.scatter([ranks[i] for i in order], range(len(order)), marker=marker, s=22, color="black", zorder=3,
                     label=task, facecolors="white", linewidths=0.9)
    axis.set_yticks(range(len(order)), [_short(rows[i].label) for i in order], fontsize=8)
    axis.set_ylim(len(order) - 0.4, -0.6)
    axis.set_xlabel(f"rank among {len(rows)} settings, {outcome.guide} split: 1 is best", fontsize=9)
    axis.set_xlim(0, None)
    axis.grid(axis="x", alpha=0.25)
    axis.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), title="on one task",
                title_fontsize=8)
    return save_figure(figure, folder / "ranks.png")


def draw_parameters(outcome: Outcome, folder: Path) -> Iterator[tuple[Path, str]]:
    """The quantity over numeric options: curves over each, and heat maps over pairs of them, with captions."""
    rows = outcome.settings
    numeric = _numeric_options(rows)
    name = QUANTITIES[outcome.quantity]
    over = f"{name}, {outcome.guide} split; of settings that differ in something else, the best"
    if numeric:
        figure, axes = _grid_of(len(numeric), 3.9, 3.0)
        colours = _colours(outcome)
        for axis, (option, numbers) in zip(axes, numeric.items(), strict=False):
            for method in outcome.methods:
                best = _best_by(outcome, [row for row in rows if row.method == method and option in row.entry.options],
                                lambda row, numbers=numbers: numbers[id(row)])
                if best:
                    x, y = zip(*sorted(best.items()), strict=True)
                    axis.plot(x, y, marker="o", markersize=4, color=colours[method], label=method)
            values = sorted(set(numbers.values()))
            if values[0] > 0 and values[-1] / values[0] >= 8:
                axis.set_xscale("log")
            axis.set(xlabel=option, ylabel=name)
            if outcome.quantity == "rank":
                axis.invert_yaxis()
            axis.grid(alpha=0.25)
        _legend(figure, *axes)
        yield save_figure(figure, folder / "options.png"), over
    maps = [(method, a, b) for a, b in itertools.combinations(numeric, 2) for method in outcome.methods
            if any(a in row.entry.options and b in row.entry.options and row.method == method for row in rows)]
    if maps:
        yield _heat_maps(outcome, maps[:MOST_MAPS], numeric, folder / "heatmap.png"), over


def draw_weights(outcome: Outcome, folder: Path) -> Path | None:
    """The quantity over constant weights: a curve for two tasks, a triangle for three, lines for more."""
    rows = [row for row in outcome.settings if isinstance(row.entry.options.get("balance.weights"), dict)]
    tasks = list(rows[0].entry.options["balance.weights"]) if rows else []
    rows = [row for row in rows if list(row.entry.options["balance.weights"]) == tasks]

    def shares(row: Row) -> tuple[float, ...]:
        weights = row.entry.options["balance.weights"]
        total = math.fsum(weights.values()) or 1.0
        return tuple(round(weights[task] / total, 6) for task in tasks)

    best = _best_by(outcome, rows, shares)
    if len(tasks) < 2 or len(best) < 2:
        return None
    points, values, name = np.array(list(best)), np.array(list(best.values())), QUANTITIES[outcome.quantity]
    if len(tasks) == 2:
        figure, axes = _grid_of(1 + len(tasks), 3.7, 3.0)
        axes[0].plot(*zip(*sorted(zip(points[:, 0], values, strict=True)), strict=True), marker="o", color="tab:blue")
        axes[0].set_ylabel(name)
        for axis, task in zip(axes[1:], tasks, strict=False):
            single = {shares(row): outcome.mean(row, task, outcome.guide)
                      for row in sorted(rows, key=outcome.quality)}  # the best comes last, and stays
            axis.plot(*zip(*sorted((key[0], value) for key, value in single.items()), strict=True), marker="o",
                      color="tab:orange")
            axis.set_ylabel(f"{outcome.heading(task)} {'↑' if outcome.higher[task] else '↓'}")
        for axis in axes:
            axis.set_xlabel(f"share of {tasks[0]} in the weights")
            axis.grid(alpha=0.25)
        figure.tight_layout()
    elif len(tasks) == 3:
        figure = _triangle(points, values, tasks, name)
    else:
        plt = pyplot()
        figure, axis = plt.subplots(figsize=(1.6 + 1.1 * len(tasks), 3.6))
        colours = plt.get_cmap("viridis")((values - values.min()) / ((values.max() - values.min()) or 1))
        for i in np.argsort(values):
            axis.plot(range(len(tasks)), points[i], color=colours[i], alpha=0.8)
        axis.set_xticks(range(len(tasks)), tasks, rotation=30, ha="right")
        axis.set_ylabel("share in the weights")
        _colour_bar(figure, axis, values, name)
    return save_figure(figure, folder / "weights.png")


def _triangle(points: np.ndarray, values: np.ndarray, tasks: Sequence[str], name: str) -> Any:
    plt = pyplot()
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(0.75)]])
    places = points @ corners
    figure, axis = plt.subplots(figsize=(5.4, 4.4))
    axis.plot(*np.concatenate([corners, corners[:1]]).T, color="0.6", linewidth=1)
    gaps = np.linalg.norm(places[:, None] - places[None], axis=-1)
    size = (0.8 * 230 * gaps[gaps > 1e-6].min()) ** 2  # points²; a side of the triangle has about 230
    axis.scatter(*places.T, c=values, s=size, cmap="viridis", edgecolors="white")
    middle = (values.min() + values.max()) / 2
    for (x, y), value in zip(places, values, strict=True):
        axis.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=7,
                  color="black" if value > middle else "white")
    for (x, y), task, below in zip(corners, tasks, (True, True, False), strict=True):
        axis.text(x, y + (-0.07 if below else 0.05), f"all on {task}", ha="center", va="center", fontsize=9)
    axis.set(xlim=(-0.18, 1.18), ylim=(-0.13, 0.98), aspect="equal")
    axis.axis("off")
    _colour_bar(figure, axis, values, name)
    return figure


def _heat_maps(outcome: Outcome, maps: Sequence[tuple[str, str, str]], numeric: dict[str, dict[int, float]],
               path: Path) -> Path:
    figure, axes = _grid_of(len(maps), 4.2, 3.4)
    tables = []
    for method, a, b in maps:
        rows = [row for row in outcome.settings if row.method == method and {a, b} <= row.entry.options.keys()]
        best = _best_by(outcome, rows, lambda row, a=a, b=b: (numeric[a][id(row)], numeric[b][id(row)]))
        columns, lines = (sorted({key[i] for key in best}) for i in (0, 1))
        table = np.array([[best.get((x, y), math.nan) for x in columns] for y in lines]).reshape(len(lines), -1)
        tables.append((columns, lines, table))
    every = np.concatenate([table.ravel() for *_, table in tables])
    every = every[np.isfinite(every)]
    low, high = (every.min(), every.max()) if every.size else (0.0, 1.0)
    for axis, (method, a, b), (columns, lines, table) in zip(axes, maps, tables, strict=False):
        axis.imshow(table, cmap="viridis" + ("_r" if outcome.quantity == "rank" else ""), vmin=low, vmax=high,
                    aspect="auto", origin="lower")
        for (y, x), value in np.ndenumerate(table):
            colour = "white" if (value < (low + high) / 2) != (outcome.quantity == "rank") else "black"
            if math.isfinite(value):
                axis.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=8, color=colour)
        axis.set_xticks(range(len(columns)), [f"{value:g}" for value in columns], fontsize=8)
        axis.set_yticks(range(len(lines)), [f"{value:g}" for value in lines], fontsize=8)
        axis.set(xlabel=a, ylabel=b)
        axis.set_title(f"{method}: {QUANTITIES[outcome.quantity]}", fontsize=10)
    figure.tight_layout()
    return save_figure(figure, path)


def _best_by(outcome: Outcome, rows: Sequence[Row], key: Any) -> dict[Any, float]:
    """What the best setting of each key has, as it is shown."""
    found: dict[Any, float] = {}
    for row in rows:
        value = outcome.quality(row)
        if row.measured and math.isfinite(value):
            found[key(row)] = max(value, found.get(key(row), -math.inf))
    return {at: -value if outcome.quantity == "rank" else value for at, value in found.items()}


def _numeric_options(rows: Sequence[Row]) -> dict[str, dict[int, float]]:
    """Options that are varied in numbers: the number of each row that has it, by the row's identity."""
    found: dict[str, dict[int, float]] = {}
    for option in dict.fromkeys(option for row in rows for option in row.entry.options):
        values = {id(row): _at(as_dict(row.entry.config), option) for row in rows if option in row.entry.options}
        plain = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values.values())
        if plain and len(set(values.values())) > 1:
            found[option] = values
    return found


def _at(data: Any, option: str) -> Any:
    for part in option.split("."):
        data = data.get(part) if isinstance(data, dict) else None
    return data


def _colours(outcome: Outcome) -> dict[str, Any]:
    plt = pyplot()
    others = [method for method in outcome.methods if method != SINGLE]
    cmap = plt.get_cmap("tab10" if len(others) <= 10 else "tab20")
    return {SINGLE: "0.25", **{method: cmap(i % cmap.N) for i, method in enumerate(others)}}


def _grid_of(count: int, width: float, height: float) -> tuple[Any, list[Any]]:
    columns = min(4 if count != 5 else 3, count)
    lines = -(-count // columns)
    figure, axes = pyplot().subplots(lines, columns, figsize=(width * columns, height * lines), squeeze=False)
    for axis in axes.flat:
        axis.tick_params(labelsize=8)
        axis.title.set_fontsize(10)
        axis.xaxis.label.set_fontsize(9)
        axis.yaxis.label.set_fontsize(9)
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    return figure, list(axes.flat)


def _legend(figure: Any, *axes: Any) -> None:
    """One legend for all panels, above them."""
    figure.tight_layout()
    found = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    if len(found) > 1:
        figure.legend(found.values(), found.keys(), loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=8,
                      frameon=False, ncols=min(6, len(found)))


def _colour_bar(figure: Any, axis: Any, values: np.ndarray, name: str) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    bar = figure.colorbar(ScalarMappable(Normalize(values.min(), values.max()), "viridis"), ax=axis, shrink=0.8)
    bar.set_label(name, fontsize=9)
    bar.ax.tick_params(labelsize=8)


def _short(label: str, most: int = 72) -> str:
    return label if len(label) <= most else f"{label[: most // 2]}…{label[len(label) - most // 2 + 1:]}"
