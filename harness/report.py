"""``report.html``: one page that opens offline, with its pictures inside."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.files import write_atomically, write_text

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title><style>
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.lead { opacity: .75; margin-top: 0; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } tr:hover td { background: var(--soft); }
figure { margin: 1rem 0; } figure img { max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
figcaption { opacity: .75; font-size: .9em; } pre { background: var(--soft); padding: .8rem; overflow-x: auto; }
details summary { cursor: pointer; opacity: .75; }
</style></head><body>
<h1>{{ title }}</h1>{% if lead %}<p class="lead">{{ lead }}</p>{% endif %}
{% for section in sections %}<section><h2>{{ section.title }}</h2>
{% for paragraph in section.text %}<p>{{ paragraph }}</p>{% endfor %}
{% if section.rows %}<div class="scroll"><table><thead><tr>{% for cell in section.header %}<th>{{ cell }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in section.rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}</tbody></table></div>{% endif %}
{% for figure in section.figures %}<figure><img alt="{{ figure.caption }}" src="data:image/png;base64,{{ figure.data }}">
<figcaption>{{ figure.caption }}</figcaption></figure>{% endfor %}
{% if section.code %}<details><summary>{{ section.code_title }}</summary><pre>{{ section.code }}</pre></details>{% endif %}
</section>{% endfor %}
</body></html>
"""


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
    template = Environment(autoescape=True, trim_blocks=True).from_string(_PAGE)
    write_text(path, template.render(title=title, lead=lead, sections=plain))


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
