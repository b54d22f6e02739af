"""What a strategy did, out of the log of a run: figures, and the numbers that stand for them in a table.

Every ``draw_`` function takes the lines of ``metrics.jsonl``, draws what they have, and returns the path of the figure,
or None where they have nothing for it. A line stands for each of a few tasks; many are quantiles and a heat map.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.report import pyplot, save_figure

#: With more names than these there are no lines of single ones.
MOST_LINES = 10
#: Columns of a heat map at most: what lies between is averaged.
MOST_COLUMNS = 100
#: Lines of the log from which on a moving average is drawn over them.
SMOOTHED = 60

Log = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Series:
    """Numbers by name over the steps.

    Args:
        names: of the columns.
        steps: ``[N]``.
        values: ``[N, len(names)]``; NaN where a step lacks one.
    """

    names: list[str]
    steps: np.ndarray
    values: np.ndarray

    @property
    def few(self) -> bool:
        """Whether each can have a line."""
        return len(self.names) <= MOST_LINES


def series(log: Log, numbers: Callable[[Mapping[str, Any]], Mapping[str, Any] | None],
           order: Sequence[str] = ()) -> Series | None:
    """What ``numbers`` finds in the lines of the log; None where that is less than two steps.

    Args:
        log: the lines.
        numbers: by name, in one of them; what is not finite in a run is None in its log.
        order: of the names that are tasks; other names come after them, in the order of the log.
    """
    found = [(line["step"], values) for line in log if (values := numbers(line))]
    places = {task: place for place, task in enumerate(order)}
    names = sorted(dict.fromkeys(name for _, values in found for name in values),
                   key=lambda name: places.get(name.split("+")[0], len(places)))
    table = np.array([[_number(values.get(name)) for name in names] for _, values in found], dtype=float)
    if not found or np.isfinite(table).any(1).sum() < 2:
        return None
    return Series(names, np.array([step for step, _ in found]), table)


def draw_strategy(log: Log, folder: Path, tasks: Sequence[str] = (), seen: str = "") -> Iterator[tuple[Path, str]]:
    """All figures but that of the losses, with captions.

    Args:
        log: lines of the log.
        folder: for the figures.
        tasks: in the order wanted.
        seen: what gradients were taken with respect to, for the captions: ``"the last shared layer"``.
    """
    to = f" with respect to {seen}" if seen else ""
    figures = [(draw_weights(log, folder, tasks), "Weights of the tasks in each logged step"),
               (draw_gradient_norms(log, folder, tasks), f"Norms of the tasks' gradients{to}, without weights"),
               (draw_cosines(log, folder), f"Cosines between the tasks' gradients{to}, and the share of pairs in "
                                           "conflict (cosine below zero)"),
               (draw_distance(log, folder), "The way through the space of the shared parameters: what all steps add up "
                                            "to, and the straight line from the start"),
               (draw_visited(log, folder), "Share of the filters that a task has used so far, mean over the tasks")]
    yield from ((path, caption) for path, caption in figures if path is not None)


def draw_losses(log: Log, folder: Path, tasks: Sequence[str] = ()) -> Path | None:
    """``losses.png``: a panel for each of a few tasks; of many, losses relative to their first values."""
    losses = series(log, lambda line: {key.removeprefix("loss_"): value for key, value in line.items()
                                       if key.startswith("loss_")}, tasks)
    if losses is None:
        return None
    path = folder / "losses.png"
    if losses.few:
        figure, axes = _panels(len(losses.names))
        for axis, name, column, colour in zip(axes, losses.names, losses.values.T, _colours(losses.names), strict=True):
            _line(axis, losses.steps, column, colour)
            _finish(axis, f"loss of {name}")
        return save_figure(figure, path)
    return draw_many(relative(losses), "loss, relative to the first one", path)


def draw_weights(log: Log, folder: Path, tasks: Sequence[str] = ()) -> Path | None:
    """``weights.png``."""
    return _by_name(series(log, lambda line: line.get("weights"), tasks), "weight", folder / "weights.png")


def draw_gradient_norms(log: Log, folder: Path, tasks: Sequence[str] = ()) -> Path | None:
    """``gradient_norms.png``."""
    found = series(log, lambda line: line.get("gradient_norm"), tasks)
    return _by_name(found, "norm of the gradient", folder / "gradient_norms.png")


def draw_cosines(log: Log, folder: Path) -> Path | None:
    """``cosines.png``: cosines over the steps, the share of conflicts, and the mean cosine of each pair."""
    mean = series(log, lambda line: {"mean": line["mean_cosine"]} if "mean_cosine" in line else None)
    conflicts = series(log, lambda line: {"share": line["conflicts"]} if "conflicts" in line else None)
    pairs = series(log, lambda line: line.get("cosine"))
    if mean is None or conflicts is None:
        return None
    tasks = [] if pairs is None else list(dict.fromkeys(task for pair in pairs.names for task in pair.split("|")))
    matrix = len(tasks) > 2
    figure, axes = _panels(2 + matrix, width=4.4, height=3.4)
    if pairs is not None and len(pairs.names) > 1:
        if pairs.few:
            for name, column, colour in zip(pairs.names, pairs.values.T, _colours(pairs.names), strict=True):
                _line(axes[0], pairs.steps, column, colour, name.replace("|", " · "))
        else:
            _bands(axes[0], pairs, "pairs")
    _line(axes[0], mean.steps, mean.values[:, 0], "black", "mean of the pairs")
    axes[0].axhline(0, color="0.5", linewidth=0.8)
    _finish(axes[0], "cosine of two gradients", legend=True)
    _line(axes[1], conflicts.steps, 100 * conflicts.values[:, 0], "tab:red")
    axes[1].set_ylim(-3, 103)
    _finish(axes[1], "pairs in conflict [%]")
    if matrix:
        _matrix(axes[2], pairs, tasks)
    return save_figure(figure, folder / "cosines.png")


def draw_distance(log: Log, folder: Path) -> Path | None:
    """``distance.png``: covered distance, shortest path, and their ratio."""
    lengths = series(log, lambda line: {label: line[key] for key, label in
                                        (("covered_distance", "covered distance"), ("shortest_path", "shortest path"))
                                        if key in line})
    if lengths is None:
        return None
    ratio = series(log, lambda line: {"ratio": line["distance_ratio"]} if "distance_ratio" in line else None)
    figure, axes = _panels(1 + (ratio is not None), width=4.4, height=3.0)
    for name, column, colour in zip(lengths.names, lengths.values.T, _colours(lengths.names), strict=True):
        _line(axes[0], lengths.steps, column, colour, name, smooth=False)
    axes[0].set_ylim(bottom=0)
    _finish(axes[0], "in the shared parameters", legend=True)
    if ratio is not None:
        _line(axes[1], ratio.steps, ratio.values[:, 0], "tab:green", smooth=False)
        _finish(axes[1], "covered distance / shortest path")
    return save_figure(figure, folder / "distance.png")


def draw_visited(log: Log, folder: Path) -> Path | None:
    """``visited.png``: how far the tasks of a partition have roamed."""
    visited = series(log, lambda line: {"visited": line["visited"]} if "visited" in line else None)
    if visited is None:
        return None
    figure, axes = _panels(1, width=4.4, height=3.0)
    _line(axes[0], visited.steps, 100 * visited.values[:, 0], "tab:blue", smooth=False)
    axes[0].set_ylim(top=102)
    _finish(axes[0], "filters visited [%]")
    return save_figure(figure, folder / "visited.png")


def strategy_measures(log: Log) -> dict[str, float]:
    """What stands for a run in a table: means over its logged steps, and the distances at its end.

    Returns:
        What there is of ``mean_cosine``, ``conflicts``, ``covered_distance``, ``shortest_path``, ``distance_ratio`` and
        ``visited``.
    """
    found = {}
    for key in ("mean_cosine", "conflicts", "covered_distance", "shortest_path", "distance_ratio", "visited"):
        values = [line[key] for line in log if line.get(key) is not None]
        if values:
            found[key] = math.fsum(values) / len(values) if key in ("mean_cosine", "conflicts") else values[-1]
    return found


def _by_name(found: Series | None, what: str, path: Path) -> Path | None:
    """Lines of a few names in one panel, or quantiles and a heat map of many."""
    if found is None:
        return None
    if not found.few:
        return draw_many(found, what, path)
    figure, axes = _panels(1, width=8.5, height=3.4)
    for name, column, colour in zip(found.names, found.values.T, _colours(found.names), strict=True):
        _line(axes[0], found.steps, column, colour, name)
    _scale(axes[0], found.values)
    _finish(axes[0], what, legend=True)
    return save_figure(figure, path)


def relative(found: Series) -> Series:
    """Each name's values divided by its first one: of different units, they can be drawn together."""
    first = np.array([_first(column) for column in found.values.T])
    return Series(found.names, found.steps, found.values / first)


def draw_many(found: Series, what: str, path: Path) -> Path:
    """Quantiles over the tasks, and a heat map with a row for each, the largest at the end on top."""
    from matplotlib.colors import LogNorm

    plt = pyplot()
    height = float(np.clip(0.9 + 0.145 * len(found.names), 4.0, 14.0))
    figure, axes = plt.subplots(1, 2, figsize=(12.5, height), width_ratios=(1, 1.35))
    _bands(axes[0], found, "tasks")
    _scale(axes[0], found.values)
    _finish(axes[0], what, legend=True)
    steps, table = _binned(found)
    late = np.array([_mean(column) for column in found.values[-max(1, len(found.steps) // 4):].T])
    order = np.argsort(np.where(np.isfinite(late), -late, np.inf), kind="stable")
    finite = table[np.isfinite(table)]
    image = axes[1].imshow(table[:, order].T, aspect="auto", interpolation="nearest", cmap="viridis",
                           norm=LogNorm() if finite.size and _spreads(finite) else None,
                           extent=(steps[0], steps[-1] + max(1, steps[-1] - steps[0]) / len(steps),
                                   len(order) - 0.5, -0.5))
    size = min(7.0, 0.8 * 72 * (height - 0.9) / len(order))
    axes[1].set_yticks(range(len(order)), [found.names[i] for i in order], fontsize=size)
    axes[1].set_facecolor("0.85")  # steps without labels of the task
    axes[1].set_title(f"{what}, by task", fontsize=10)
    axes[1].set_xlabel("step", fontsize=8)
    axes[1].tick_params(axis="x", labelsize=8)
    figure.colorbar(image, ax=axes[1], pad=0.02, fraction=0.05).ax.tick_params(labelsize=8)
    figure.tight_layout()
    return save_figure(figure, path)


def _bands(axis: Any, found: Series, what: str) -> None:
    """Quantiles over the names in each step, smoothed over steps."""
    steps, table = found.steps, found.values
    if np.isfinite(table).mean() < 0.5:  # a step has few of them: those of steps side by side, then
        steps, table = _binned(found)
    rows = np.isfinite(table).any(1)
    steps = steps[rows]
    quantiles = np.nanpercentile(table[rows], (0, 5, 25, 50, 75, 95, 100), axis=1)
    least, low, lower, median, upper, high, most = (_smooth(values) for values in quantiles)
    axis.fill_between(steps, least, most, color="tab:blue", alpha=0.10, linewidth=0, label=f"all {what}")
    axis.fill_between(steps, low, high, color="tab:blue", alpha=0.18, linewidth=0, label="5 to 95 %")
    axis.fill_between(steps, lower, upper, color="tab:blue", alpha=0.35, linewidth=0, label="25 to 75 %")
    axis.plot(steps, median, color="tab:blue", linewidth=1.5, label="median", marker="." if len(steps) < 3 else None)


def _matrix(axis: Any, pairs: Series, tasks: list[str]) -> None:
    """The mean over the steps of the cosine of each pair."""
    table = np.full((len(tasks), len(tasks)), np.nan)
    for pair, column in zip(pairs.names, pairs.values.T, strict=True):
        i, j = (tasks.index(task) for task in pair.split("|"))
        table[i, j] = table[j, i] = _mean(column)
    reach = max(0.1, float(np.nanmax(np.abs(table))))
    image = axis.imshow(table, cmap="RdBu", vmin=-reach, vmax=reach)
    for i, j in np.argwhere(np.isfinite(table)):
        axis.text(j, i, f"{table[i, j]:+.2f}".replace("-", "−"), ha="center", va="center",
                  fontsize=8 if len(tasks) <= 6 else 6, color="white" if abs(table[i, j]) > 0.6 * reach else "black")
    axis.set_xticks(range(len(tasks)), tasks, fontsize=8, rotation=45, ha="right")
    axis.set_yticks(range(len(tasks)), tasks, fontsize=8)
    axis.set_title("mean cosine over the run", fontsize=10)
    axis.figure.colorbar(image, ax=axis, pad=0.02, fraction=0.05).ax.tick_params(labelsize=8)


def _line(axis: Any, steps: np.ndarray, values: np.ndarray, colour: Any, label: str | None = None,
          smooth: bool = True) -> None:
    """A line over the steps that have a value; where there are many, pale under its moving average."""
    known = np.isfinite(values)
    steps, values = steps[known], values[known]
    marker = "." if len(steps) < 3 else None
    if smooth and len(steps) >= SMOOTHED:
        axis.plot(steps, values, color=colour, linewidth=0.6, alpha=0.25)
        values = _smooth(values)
    axis.plot(steps, values, color=colour, linewidth=1.4, label=label, marker=marker)


def _smooth(values: np.ndarray) -> np.ndarray:
    """A centred moving mean over a thirtieth of the values, less of them at both ends; a few stay as they are."""
    if len(values) < SMOOTHED:
        return values
    half = len(values) // 60
    sums = np.concatenate([[0.0], np.cumsum(values)])
    first = np.clip(np.arange(len(values)) - half, 0, None)
    last = np.clip(np.arange(len(values)) + half + 1, None, len(values))
    return (sums[last] - sums[first]) / (last - first)


def _binned(found: Series) -> tuple[np.ndarray, np.ndarray]:
    """Steps ``[M]`` and means ``[M, K]`` of at most :data:`MOST_COLUMNS` bins."""
    pieces = np.array_split(np.arange(len(found.steps)), min(MOST_COLUMNS, len(found.steps)))
    table = np.array([[_mean(column) for column in found.values[piece].T] for piece in pieces])
    return found.steps[[piece[0] for piece in pieces]], table


def _scale(axis: Any, values: np.ndarray) -> None:
    """A logarithmic axis where values spread over more than one order of magnitude."""
    known = values[np.isfinite(values)]
    if _spreads(known):
        axis.set_yscale("log")


def _spreads(values: np.ndarray) -> bool:
    return bool(values.min() > 0 and values.max() > 20 * values.min())


def _panels(count: int, width: float = 3.4, height: float = 2.6) -> tuple[Any, list[Any]]:
    """A figure with so many panels, four in a row."""
    columns = min(4, count)
    rows = -(-count // columns)
    figure, axes = pyplot().subplots(rows, columns, figsize=(width * columns, height * rows), squeeze=False,
                                     layout="constrained")
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    return figure, list(axes.flat[:count])


def _finish(axis: Any, title: str, legend: bool = False) -> None:
    axis.set_title(title, fontsize=10)
    axis.set_xlabel("step", fontsize=8)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)
    count = len(axis.get_legend_handles_labels()[0])
    if legend and count:
        beside = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)} if count > 4 else {}
        axis.legend(fontsize=7, edgecolor="none", framealpha=0.6, **beside)


def _colours(names: Sequence[str]) -> list[Any]:
    """One for each, from the ten that are easy to tell apart."""
    wheel = pyplot().get_cmap("tab10").colors
    return [wheel[i % len(wheel)] for i in range(len(names))]


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan


def _first(values: np.ndarray) -> float:
    """The first value that others can be divided by."""
    known = values[np.isfinite(values) & (values > 0)]
    return float(known[0]) if len(known) else math.nan
