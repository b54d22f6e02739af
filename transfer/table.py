"""One table out of the results of several runs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import UserError

Result = Mapping[str, Any]
UNITS = {"RMSE": "m", "abs": "m", "mean_angle": "°", "median_angle": "°", "abs_rel": "", "L1": "px"}
_LATEX = str.maketrans({"↑": r"$\uparrow$", "↓": r"$\downarrow$", "±": r"$\pm$", "°": r"$^\circ$", "–": "--",
                        **{symbol: "\\" + symbol for symbol in "%_&#${}"}, "~": r"\textasciitilde{}"})


@dataclass(frozen=True)
class Column:
    """A quantity: its heading, its value in a result (``None`` where it has none), and how it is shown.

    Args:
        heading: text above the column.
        values: one list of values, one for each seed, for each row.
        digits: decimals.
        higher_is_better: direction, or ``None`` where there is no best.
        signed: write the plus sign.
        spread: show the standard deviation; pointless for what no seed changes.
    """

    heading: str
    values: list[list[float]]
    digits: int = 2
    higher_is_better: bool | None = None
    signed: bool = False
    spread: bool = True

    def cell(self, row: int) -> str:
        """Mean, and standard deviation over seeds where there are several."""
        values = self.values[row]
        if not values:
            return "–"
        mean = round(statistics.fmean(values), 9) or 0.0  # no minus before a rounded zero of a signed column
        if math.isnan(mean):
            return "nan"
        text = f"{mean:{'+' if self.signed else ''}.{self.digits}f}"
        if len(values) < 2 or not self.spread:
            return text
        return f"{text} ± {statistics.stdev(values):.{self.digits}f}"

    def best(self) -> set[int]:
        """Rows with the best mean as shown; none when there is nothing to compare."""
        if self.higher_is_better is None:
            return set()
        means = {row: statistics.fmean(values) for row, values in enumerate(self.values) if values}
        means = {row: round(mean, self.digits) for row, mean in means.items() if not math.isnan(mean)}
        if len(set(means.values())) < 2:
            return set()
        top = max(means.values()) if self.higher_is_better else min(means.values())
        return {row for row, mean in means.items() if mean == top}


@dataclass(frozen=True)
class Table:
    """Rows of text and columns of numbers, in three notations."""

    names: tuple[str, ...]
    rows: list[tuple[str, ...]]
    columns: list[Column]

    def text(self) -> str:
        """For a terminal: aligned, the best of a column marked with ``*``."""
        cells = self._cells(lambda text: f"{text} *")
        marked = [any(row[i].endswith(" *") for row in cells[1:]) for i in range(len(cells[0]))]
        cells = [[cell + "  " if wide and not cell.endswith(" *") else cell
                  for cell, wide in zip(row, marked, strict=True)] for row in cells]
        widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]

        def line(row: Sequence[str]) -> str:
            return "  ".join(
                cell.ljust(width) if i < len(self.names) else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()

        rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
        return "\n".join([line(cells[0]), rule, *(line(row) for row in cells[1:])])

    def markdown(self) -> str:
        """A pipe table, the best of a column bold."""
        cells = self._cells(lambda text: f"**{text}**")
        cells = [[cell.replace("|", r"\|") for cell in row] for row in cells]
        ruler = ["---"] * len(self.names) + ["---:"] * len(self.columns)
        return "\n".join("| " + " | ".join(row) + " |" for row in (cells[0], ruler, *cells[1:]))

    def latex(self) -> str:
        """A ``tabular`` for the ``booktabs`` package, the best of a column bold."""
        start, end = "\0", "\1"  # kept apart from the text, which is escaped
        cells = self._cells(lambda text: start + text + end)

        def safe(cell: str) -> str:
            cell = r"$\Delta_\mathrm{MTL}$".join(part.translate(_LATEX) for part in cell.split("Δ_MTL"))
            return cell.replace(start, r"\textbf{").replace(end, "}")

        lines = [" & ".join(safe(cell) for cell in row) + r" \\" for row in cells]
        layout = "l" * len(self.names) + "r" * len(self.columns)
        return "\n".join([rf"\begin{{tabular}}{{{layout}}}", r"\toprule", lines[0], r"\midrule", *lines[1:],
                          r"\bottomrule", r"\end{tabular}"])

    def cells(self, mark: Callable[[str], str] = str) -> list[list[str]]:
        """Rows of plain text, the headings first; ``mark`` changes the best of a column."""
        return self._cells(mark)

    def _cells(self, mark) -> list[list[str]]:
        best = [column.best() for column in self.columns]
        body = [
            [*names, *(mark(column.cell(i)) if i in top else column.cell(i)
                       for column, top in zip(self.columns, best, strict=True))]
            for i, names in enumerate(self.rows)
        ]
        return [[*self.names, *(column.heading for column in self.columns)], *body]


def build_table(results: Iterable[Result]) -> Table:
    """Arrange results, seeds of the same run together, in the order in which they first come.

    Args:
        results: contents of ``results.json`` files.

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
    return Table(tuple(told), rows, [*task_columns(groups), *_cost_columns(groups)])


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
        unit = UNITS.get(metric, "%")
        heading = f"{task} {metric}{f' [{unit}]' if unit else ''} {'↑' if higher else '↓'}"
        columns.append(Column(heading, values, 3 if unit == "m" else 2, higher))
    return columns


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
    return [column for column in columns if any(column.values)]


def _numbers(values: Iterable[float | None]) -> list[float]:
    return [float(value) for value in values if value is not None]
