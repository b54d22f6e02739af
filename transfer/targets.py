"""A run's figures beside the published ones: ``python -m transfer.targets RUN``."""

from __future__ import annotations

import argparse
import math
import shutil
import textwrap
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from harness.errors import UserError
from harness.program import run_program
from transfer.published import Published, published
from transfer.units import decimals, heading_of, unit_of

_WORDS, _STAR = 4, "*\N{NO-BREAK SPACE}"
"""Columns of words; a star and its space."""


def comparable(results: dict[str, Any]) -> list[tuple[Published, dict[str, dict[str, float]]]]:
    """Published rows that state a figure that a run has too, those of the most similar set-up first.

    Args:
        results: of a run (``results.json``).

    Returns:
        Rows of the run's data set, each with the run's own figures for the same tasks and metrics. First come those of
        the same backbone and architecture, then of the same backbone, then of the same architecture, then the others.
    """
    found = []
    for row in published():
        if row.dataset != results["dataset"]:
            continue
        own = {task: {metric: figure for metric in metrics
                      if (figure := figure_of(results["metrics"], task, metric)) is not None}
               for task, metrics in row.values.items()}
        own = {task: metrics for task, metrics in own.items() if metrics}
        if own:
            found.append((row, own))
    return sorted(found, key=lambda pair: -_closeness(pair[0], results))


def figure_of(metrics: dict[str, dict[str, float | None]], task: str, metric: str) -> float | None:
    """A run's figure; the mean over all tasks that have the metric for task ``*``; None where there is none."""
    sources = metrics.values() if task == "*" else [metrics[task]] if task in metrics else []
    values = [source[metric] for source in sources if source.get(metric) is not None]
    values = [value for value in values if math.isfinite(value)]
    return math.fsum(values) / len(values) if values else None


def _closeness(row: Published, results: dict[str, Any]) -> int:
    strategy = results.get("strategy") or {}
    named = f"{strategy.get('balance')}", f"{strategy.get('schedule')}", f"{strategy.get('partition')}"
    return (4 * (row.backbone == results["backbone"]) + 2 * (row.architecture == results["architecture"])
            + any(f"{kind} {name}" in row.note for kind, name in zip(("balance", "schedule", "partition"), named,
                                                                  strict=True)))


def table(results: dict[str, Any], rows: Sequence[tuple[Published, dict[str, dict[str, float]]]]) -> list[list[str]]:
    """Cells of a table: the run, then published rows; a star where backbone and architecture are the run's.

    Figures have the decimals of their unit, which the heading states.
    """
    columns = list(dict.fromkeys((task, metric) for _, own in rows for task in own for metric in own[task]))
    units = {key: unit_of([results], *key) for key in columns}
    header = ["", "backbone", "architecture", "", *(f"{task if task != '*' else 'mean'} {heading_of(metric, unit)}"
                                                   for (task, metric), unit in units.items()), "Δ_MTL [%]"]
    strategy = results.get("strategy") or {}
    said = ", ".join(f"{kind} {name}" for kind, name in strategy.items() if name not in ("equal", "shared", "full"))

    def cells(figures: Any) -> list[str]:
        return [_number(figures(*key), f".{decimals(unit)}f") for key, unit in units.items()]

    lines = [header, [f"this run ({results['split']})" if results.get("split") else "this run", results["backbone"],
                      results["architecture"], said, *cells(lambda *key: figure_of(results["metrics"], *key)),
                      _number(results.get("delta_mtl"), "+.2f")]]
    for row, _ in rows:
        same = row.backbone == results["backbone"] and row.architecture == results["architecture"]
        lines.append([f"{'* ' if same else ''}{row.source}", row.backbone or "–", row.architecture, row.note,
                      *cells(lambda task, metric, row=row: row.values.get(task, {}).get(metric)),
                      _number(row.delta, "+.2f")])
    return lines


def _number(value: float | None, form: str) -> str:
    return "–" if value is None or not math.isfinite(value) else format(value, form)


def text(cells: Sequence[Sequence[str]], width: int) -> str:
    """Cells as aligned text of at most ``width`` letters.

    The first four columns stand at the left and are broken into lines, as headings are; where that is not enough,
    figures are left out from the right, but for the last one, and said to be.
    """
    cells, left_out = [[cell.replace("* ", _STAR, 1) for cell in row] for row in cells], []
    words = list(zip(*cells, strict=True))[:_WORDS]
    longest = [max(len(word) for cell in column for word in cell.split(" ")) for column in words]
    while True:  # wide terminals have more room for words, so that rows stay low
        figures = [max(len(part) for head in [column[0].split()] for part in [*head, *column[1:]])
                   for column in list(zip(*cells, strict=True))[_WORDS:]]
        room = width - sum(figures) - 2 * (len(figures) + _WORDS - 1)
        if room >= sum(longest) + max(0, width // 8 - 10) or len(figures) <= 2:
            break
        left_out.insert(0, cells[0][-2])
        for row in cells:
            del row[-2]
    widths = _fitted([max(map(len, column)) for column in words], longest, max(room, 2 * _WORDS))
    lines = []
    for number, row in enumerate(cells):
        parts = [textwrap.wrap(cell, size) or [""] for cell, size in zip(row, widths, strict=False)]
        parts += [cell.split() if number == 0 else [cell] for cell in row[_WORDS:]]
        for line in zip_longest(*parts, fillvalue=""):
            lines.append("  ".join([*(part.ljust(size) for part, size in zip(line, widths, strict=False)),
                                    *(part.rjust(size) for part, size in zip(line[_WORDS:], figures, strict=True))
                                    ]).rstrip())
    if left_out:
        lines += textwrap.wrap(f"for lack of room without {', '.join(left_out)}", width)
    return "\n".join(lines).replace(_STAR, "* ")


def _fitted(widths: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Widths of columns, the widest made narrower until all fit; words are broken only where nothing else helps."""
    widths = list(widths)
    while sum(widths) > room:
        wider = [i for i in range(len(widths)) if widths[i] > least[i]] or range(len(widths))
        widths[max(wider, key=widths.__getitem__)] -= 1
    return widths


def main() -> int:
    """The command ``python -m transfer.targets``."""
    from transfer.results import read_results, run_folder

    parser = argparse.ArgumentParser(prog="python -m transfer.targets",
                                     description="A run's figures beside the published ones of its data set.")
    parser.add_argument("run", metavar="RUN", nargs="+", help="folders or names of finished transfer runs")
    parser.add_argument("--same", action="store_true", help="only rows of the run's own backbone and architecture")
    arguments = parser.parse_args()
    for name in arguments.run:
        results = read_results(run_folder(name))
        rows = comparable(results)
        known = sorted({row.dataset for row in published()})
        if not rows:
            tasks = ", ".join(results["metrics"])
            raise UserError(f"{name}: no published figures for data set '{results['dataset']}' with tasks {tasks}: "
                            f"there are some for {', '.join(known)}")
        same = [pair for pair in rows if _closeness(pair[0], results) >= 6]
        if arguments.same and not same:
            raise UserError(f"{name}: no published figures for {results['architecture']} with {results['backbone']} on "
                            f"{results['dataset']}: leave out --same for other set-ups")
        print(f"{results.get('name', name)} on {results['dataset']}")
        print(text(table(results, same if arguments.same else rows), shutil.get_terminal_size((120, 24)).columns))
        if same:
            print("* the run's own backbone and architecture")
        print()
    return 0


if __name__ == "__main__":
    run_program(main)
