"""``report.html`` of an evaluation: the table, then what each protocol drew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.report import Section, notations, write_report
from pretrain.evaluation.collection import Measurement, build_table, told_apart


def write_evaluation_report(path: Path, measurements: Sequence[Measurement], title: str = "Evaluation") -> None:
    """Write the page.

    Args:
        path: of the page.
        measurements: from :func:`pretrain.evaluation.collection.read_measurements`, with their ``folder``.
        title: its heading.
    """
    measurements = told_apart(measurements)
    table = build_table(measurements)
    cells = table.cells(lambda text: f"{text} ★")
    seen = dict.fromkeys(f"{m['data']}: {m['seen']}" for m in measurements if m.get("seen"))
    seeds = ", ".join(str(seed) for seed in sorted({m["seed"] for m in measurements}))
    sections = [Section("All measurements", ["★ marks the best of each measure, by however little.",
                                             "; ".join([*seen, f"seed {seeds}"])], cells[0], cells[1:])]
    for protocol in dict.fromkeys(m["protocol"] for m in measurements):
        for measurement in (m for m in measurements if m["protocol"] == protocol):
            sections += _sections(measurement)
    sections += notations(table)
    write_report(path, title, sections)


def _sections(measurement: Measurement) -> list[Section]:
    folder = Path(measurement["folder"])
    about = " on ".join(filter(None, (measurement["protocol"], measurement["data"])))
    title = f"{about}: {measurement['checkpoint']}" if measurement["checkpoint"] else about
    text = [*measurement["remarks"], *(f"{what}: {name}" for name, what in measurement["files"])]
    figures = [(folder / name, caption) for name, caption in measurement["figures"] if (folder / name).exists()]
    numbers = [(name, f"{value:.4g}" if value is not None else "–") for name, value in measurement["metrics"].items()]
    found = [Section(title, text, ("metric", "value"), numbers, figures)]
    for heading, (header, rows) in measurement["tables"].items():
        found.append(Section(f"{title}: {heading}", header=header, rows=rows))
    return found
