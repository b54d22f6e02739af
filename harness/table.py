"""Tables of results: rows of text and columns of numbers, for a terminal, Markdown and LaTeX."""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.files import write_text

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
            return "–"
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
    """Rows of text and columns of numbers, in three notations.

    Args:
        names: headings of the text.
        rows: the text.
        columns: the numbers.
        turned: show rows as columns and columns as rows, for a few rows of many numbers.
    """

    names: tuple[str, ...]
    rows: list[tuple[str, ...]]
    columns: list[Column]
    turned: bool = False

    def text(self) -> str:
        """For a terminal: aligned, the best of a column marked with ``*``."""
        cells = self.cells(lambda text: f"{text} *")
        marked = [any(row[i].endswith(" *") for row in cells[1:]) for i in range(len(cells[0]))]
        cells = [[cell + "  " if wide and not cell.endswith(" *") else cell
                  for cell, wide in zip(row, marked, strict=True)] for row in cells]
        widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]

        def line(row: Sequence[str]) -> str:
            return "  ".join(
                cell.ljust(width) if i < self._titles else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()

        rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
        return "\n".join([line(cells[0]), rule, *(line(row) for row in cells[1:])])

    def markdown(self) -> str:
        """A pipe table, the best of a column bold."""
        cells = self.cells(lambda text: f"**{text}**")
        cells = [[cell.replace("|", r"\|") for cell in row] for row in cells]
        ruler = ["---"] * self._titles + ["---:"] * (len(cells[0]) - self._titles)
        return "\n".join("| " + " | ".join(row) + " |" for row in (cells[0], ruler, *cells[1:]))

    def latex(self) -> str:
        """A ``tabular`` for the ``booktabs`` package, the best of a column bold."""
        start, end = "\0", "\1"  # kept apart from the text, which is escaped
        cells = self.cells(lambda text: start + text + end)

        def safe(cell: str) -> str:
            cell = r"$\Delta_\mathrm{MTL}$".join(part.translate(_LATEX) for part in cell.split("Δ_MTL"))
            return cell.replace(start, r"\textbf{").replace(end, "}")

        lines = [" & ".join(safe(cell) for cell in row) + r" \\" for row in cells]
        layout = "l" * self._titles + "r" * (len(cells[0]) - self._titles)
        return "\n".join([rf"\begin{{tabular}}{{{layout}}}", r"\toprule", lines[0], r"\midrule", *lines[1:],
                          r"\bottomrule", r"\end{tabular}"])

    def write(self, markdown: str | Path | None = None, latex: str | Path | None = None) -> None:
        """To the files that are named."""
        for file, text in ((markdown, self.markdown()), (latex, self.latex())):
            if file:
                write_text(file, text + "\n")

    def cells(self, mark: Callable[[str], str] = str) -> list[list[str]]:
        """Rows of plain text, the headings first; ``mark`` changes the best of a column."""
        best = [column.best() for column in self.columns]
        body = [
            [*names, *(mark(column.cell(i)) if i in top else column.cell(i)
                       for column, top in zip(self.columns, best, strict=True))]
            for i, names in enumerate(self.rows)
        ]
        cells = [[*self.names, *(column.heading for column in self.columns)], *body]
        return [list(line) for line in zip(*cells, strict=True)] if self.turned else cells

    @property
    def _titles(self) -> int:
        """How many columns, as shown, are text."""
        return 1 if self.turned else len(self.names)


def particulars(settings: Sequence[Mapping[str, Any]], usual: Mapping[str, Any] | None = None) -> list[str]:
    """What is particular about each of several settings, in words.

    Args:
        settings: plain data by name.
        usual: what need not be said of a name, where it has that value.

    Returns:
        For each, the names and values in which not all settings agree, but for usual ones.
    """
    texts = [{name: json.dumps(value, sort_keys=True, default=str) for name, value in setting.items()}
             for setting in [*settings, usual or {}]]
    *texts, ordinary = texts
    names = dict.fromkeys(name for setting in settings for name in setting)
    differing = [name for name in names if len({text.get(name) for text in texts}) > 1]
    return [", ".join(f"{name} {setting.get(name)}" for name in differing
                      if name not in ordinary or ordinary[name] != text.get(name))
            for setting, text in zip(settings, texts, strict=True)]


def add_table_options(parser: argparse.ArgumentParser, page: str) -> None:
    """``--markdown``, ``--latex`` and ``--report`` of programs that compare.

    Args:
        parser: of the program.
        page: what its page has, for the help.
    """
    parser.add_argument("--markdown", metavar="FILE", help="write the table as Markdown")
    parser.add_argument("--latex", metavar="FILE", help="write the table as LaTeX (booktabs)")
    parser.add_argument("--report", metavar="FILE", help=f"write a page with {page}")
