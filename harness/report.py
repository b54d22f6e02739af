"""``report.html``: one page that opens offline, with its pictures inside."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.files import write_atomically, write_text
from harness.table import Table

_PAGE = Path(__file__).with_name("report.html.j2")


@dataclass
class Section:
    """A part of the page.

    Attributes:
        title: its heading.
        text: paragraphs.
        header: names of the table's columns.
        rows: the table.
        figures: (path of a PNG, caption) pairs.
        code: text shown on demand, for example a configuration.
        code_title: what is clicked to show it.
    """

    title: str
    text: Sequence[str] = ()
    header: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = ()
    figures: Sequence[tuple[Path, str]] = ()
    code: str = ""
    code_title: str = "configuration"


def write_report(path: Path, title: str, sections: Sequence[Section], lead: str = "") -> None:
    """Render ``sections`` to ``path``."""
    from jinja2 import Environment

    plain = [
        {"title": part.title, "text": part.text, "header": part.header, "rows": part.rows, "code": part.code,
         "code_title": part.code_title,
         "figures": [{"caption": caption, "data": base64.b64encode(Path(file).read_bytes()).decode()}
                     for file, caption in part.figures]}
        for part in sections
    ]
    template = Environment(autoescape=True, trim_blocks=True).from_string(_PAGE.read_text(encoding="utf-8"))
    write_text(path, template.render(title=title, lead=lead, sections=plain))


def notations(table: Table) -> list[Section]:
    """A table to copy, as Markdown and as LaTeX."""
    return [Section("Markdown", code=table.markdown(), code_title="the table as Markdown"),
            Section("LaTeX", code=table.latex(), code_title="the table as LaTeX")]


def save_figure(figure: Any, path: Path) -> Path:
    """Write a matplotlib figure as PNG, atomically, and close it."""
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    plt.close(figure)
    write_atomically(path, lambda file: file.write(buffer.getvalue()))
    return path


def pyplot() -> Any:
    """matplotlib's pyplot, drawing to files."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


@dataclass
class Curves:
    """Small line plots side by side.

    Attributes:
        panels: for each panel's title, its lines: label -> (x values, y values).
    """

    panels: dict[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]] = field(default_factory=dict)

    def draw(self, path: Path, x_label: str = "step") -> Path:
        """Draw them to ``path``: at most four in a row."""
        plt = pyplot()
        panels = {title: lines for title, lines in self.panels.items() if any(len(x) for x, _ in lines.values())}
        columns = min(4, max(1, len(panels)))
        rows = -(-len(panels) // columns) or 1
        figure, axes = plt.subplots(rows, columns, figsize=(3.6 * columns, 2.6 * rows), squeeze=False)
        for axis in axes.flat[len(panels):]:
            axis.set_visible(False)
        for axis, (title, lines) in zip(axes.flat, panels.items(), strict=False):
            for label, (x, y) in lines.items():
                axis.plot(x, y, label=label, linewidth=1.3, marker="." if len(x) < 3 else None)
            axis.set_title(title, fontsize=10)
            axis.set_xlabel(x_label, fontsize=8)
            axis.tick_params(labelsize=8)
            axis.grid(alpha=0.25)
            if len(lines) > 1:
                axis.legend(fontsize=7, frameon=False)
        figure.tight_layout()
        return save_figure(figure, path)
