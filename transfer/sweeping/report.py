"""``table.md``, ``sweep.json`` and ``report.html`` of a sweep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import yaml

from harness.config import as_dict
from harness.files import write_text
from harness.report import Section, write_report
from harness.run import encode
from harness.table import Column, Table
from transfer.report import table_section
from transfer.sweeping.outcome import Outcome, Row
from transfer.sweeping.pictures import (
    MOST_BARS,
    QUANTITIES,
    draw_parameters,
    draw_profiles,
    draw_ranks,
    draw_scatter,
    draw_weights,
)
from transfer.sweeping.plan import SINGLE
from transfer.units import decimals


def write_outcome(outcome: Outcome) -> None:
    """Write all three, and the figures."""
    folder = outcome.plan.config.folder
    write_text(folder / "sweep.json", encode(outcome.as_dict(), indent=2) + "\n")
    write_text(folder / "table.md", markdown(outcome))
    write_report(folder / "report.html", f"Sweep {folder.name}", _sections(outcome), _lead(outcome))


def summary(outcome: Outcome) -> str:
    """What the terminal shows at the end."""
    parts = []
    chosen = chosen_table(outcome)
    if chosen:
        parts.append(f"{_chosen_title(outcome)}\n{chosen.text()}")
    else:
        parts.append(f"All settings, {outcome.guide} split\n{settings_table(outcome, outcome.guide).text()}")
    if outcome.winner:
        parts.append(_winner(outcome))
    parts += [f"failed: {name}: {reason}" for name, reason in outcome.failed.items()]
    return "\n\n".join(parts)


def markdown(outcome: Outcome) -> str:
    """Everything but the pictures."""
    parts = [f"# Sweep {outcome.plan.config.folder.name}", _lead(outcome)]
    if outcome.winner:
        parts.append(_winner(outcome))
    if chosen := chosen_table(outcome):
        parts += [f"## {_chosen_title(outcome)}", chosen.markdown(), _CHOSEN]
    parts += [f"## All settings, {outcome.guide} split", settings_table(outcome, outcome.guide).markdown()]
    if outcome.split != outcome.guide:
        parts += [f"## All settings, {outcome.split} split", _NOT_BY_TEST,
                  settings_table(outcome, outcome.split).markdown()]
    parts += ["## Over hyper-parameters", robustness_table(outcome).markdown(), _robustness_text(outcome)]
    if outcome.failed:
        parts += ["## Failed runs", "\n".join(f"- {name}: {reason}" for name, reason in outcome.failed.items())]
    return "\n\n".join(parts) + "\n"


MOST_ROWS = 40
_CHOSEN = "Rank and score are among the rows of this table."
_NOT_BY_TEST = "To be reported, not chosen by."


def settings_table(outcome: Outcome, split: str) -> Table:
    """All settings on a split; on the one that they are chosen on, the best first, with rank and score."""
    rows = [row for row in outcome.done if any(outcome.values(row, task, split) for task in outcome.tasks)]
    guiding = split == outcome.guide
    rows = sorted(rows, key=lambda row: (-outcome.quality(row) if math.isfinite(outcome.quality(row)) else math.inf))
    columns = _metric_columns(outcome, rows, split)
    if guiding:
        columns += [Column("Rank ↓", [[row.rank] for row in rows], 2, False),
                    Column("Score ↑", [[row.score] for row in rows], 3, True)]
    axes = list(dict.fromkeys(axis for row in rows if not row.single for axis in row.entry.values))
    axes = list(dict.fromkeys([*axes, *(axis for row in rows for axis in row.entry.values)]))
    ends = [axis.split(".")[-1] for axis in axes]
    headings = [end if ends.count(end) == 1 else axis for end, axis in zip(ends, axes, strict=True)]
    names = [(row.method, *(row.entry.values.get(axis, "–") for axis in axes), _seeds(row)) for row in rows]
    return Table(("Method", *headings, "Seeds"), names, columns)


def chosen_table(outcome: Outcome) -> Table | None:
    """The chosen setting of each method on the split of the results."""
    if not outcome.benchmark:
        return None
    rows = [row for _, row, *_ in outcome.benchmark]
    columns = [
        *_metric_columns(outcome, rows, outcome.split),
        Column("Rank ↓", [[rank] for *_, rank, _ in outcome.benchmark], 2, False),
        Column("Score ↑", [[score] for *_, score in outcome.benchmark], 3, True),
    ]
    names = [(method, row.entry.detail or "–", _seeds(row)) for method, row, *_ in outcome.benchmark]
    return Table(("Method", "Setting", "Seeds"), names, columns)


def robustness_table(outcome: Outcome) -> Table:
    """How sensitive each method is to its hyper-parameters."""
    found = outcome.robustness
    sign = -1 if outcome.quantity == "rank" else 1
    digits, signed = (2, True) if outcome.quantity == "delta_mtl" else (3, False)
    higher = outcome.quantity != "rank"

    def column(heading: str, key: str, digits: int, higher: bool | None, scale: float = 1,
               signed: bool = False) -> Column:
        values = [[] if row[key] is None else [row[key] * scale] for row in found.values()]
        return Column(heading, values, digits, higher, signed)

    quantity = QUANTITIES[outcome.quantity]
    columns = [
        column("Settings", "settings", 0, None),
        *([column("Failed", "failed", 0, None)] if any(row["failed"] for row in found.values()) else []),
        *(column(f"{key.capitalize()} {quantity} {'↑' if higher else '↓'}", key, digits, higher, sign, signed)
          for key in ("best", "median", "worst")),
        column("In the best fifth [%] ↑", "share_of_top_fifth", 0, True, 100),
        column("Area under profile ↑", "profile_area", 3, True),
    ]
    return Table(("Method",), [(method,) for method in found], columns)


def _metric_columns(outcome: Outcome, rows: Sequence[Row], split: str) -> list[Column]:
    columns = []
    for task in outcome.tasks:
        higher = outcome.higher[task]
        heading = f"{outcome.heading(task)} {'↑' if higher else '↓'}"
        columns.append(Column(heading, [outcome.values(row, task, split) for row in rows],
                              decimals(outcome.units[task]), higher))
    deltas = [outcome.deltas(row, split) for row in rows]
    if any(deltas):
        columns.append(Column("Δ_MTL [%] ↑", deltas, 2, True, True))
    return columns


def _seeds(row: Row) -> str:
    wanted = len(row.entry.runs)
    return str(wanted) if len(row.measured) == wanted else f"{len(row.measured)} of {wanted}"


def _lead(outcome: Outcome) -> str:
    sweep, settings = outcome.plan.config, len(outcome.plan.entries)
    seeds, recipes = len(sweep.seed_list), len(outcome.plan.singles)
    text = f"{settings} setting{'s' * (settings != 1)}, {seeds} seed{'s' * (seeds != 1)} each"
    if recipes:
        text += f"; single-task networks with {recipes} recipe{'s' * (recipes != 1)}"
    text += ". "
    if outcome.criterion == "none":
        text += f"Nothing is chosen: all figures are of the {outcome.split} split."
    else:
        by = {"delta_mtl": "Δ_MTL", "score": "the normalised multi-task score", "rank": "average rank"}
        text += f"Chosen on the validation split by {by[outcome.quantity]}, never on the {outcome.split} split."
    if left := len(outcome.unfinished):
        text += f" {left} run{'s are' if left > 1 else ' is'} not finished."
    if failed := len(outcome.failed):
        text += f" {failed} run{'s' * (failed > 1)} failed."
    return text


def _chosen_title(outcome: Outcome) -> str:
    several = len([method for method, *_ in outcome.benchmark if method != SINGLE]) > 1
    what = "The best setting of each method" if several else "The best setting"
    return f"{what}, {outcome.split} split" + ("" if outcome.split == "val" else " (chosen on the validation split)")


def _winner(outcome: Outcome) -> str:
    first, *others = [folder for one in outcome.winner.measured for folder in one.folders]
    more = f", and {len(others)} more seed{'s' * (len(others) > 1)}" if others else ""
    return f"Best on the validation split: {outcome.winner.label} ({first}{more})"


def _robustness_text(outcome: Outcome) -> str:
    return (f"Over all settings of a method, {outcome.guide} split. The profile is the share of settings within τ of "
            "the best of all methods; its area is the mean of that share up to the τ that takes in every setting, so "
            "1 means that every setting is as good as the best. A setting that failed is never within τ.")


def _first_rows(section: Section) -> Section:
    """No longer than a page can take; the file has all."""
    if len(section.rows) > MOST_ROWS:
        section.text = [f"The first {MOST_ROWS} of {len(section.rows)}, best on the validation split first; all are in "
                        "table.md and sweep.json."]
        section.rows = section.rows[:MOST_ROWS]
    return section


def _sections(outcome: Outcome) -> list[Section]:
    figures = outcome.plan.config.folder / "figures"
    guide = f"{outcome.guide} split"

    def drawn(path: Any, caption: str) -> list[tuple[Any, str]]:
        return [(path, caption)] if path else []

    sections = []
    if chosen := chosen_table(outcome):
        part = table_section(_chosen_title(outcome), chosen)
        part.text = [*([_winner(outcome)] if outcome.winner else []), _CHOSEN]
        sections.append(part)
    part = _first_rows(table_section(f"All settings, {guide}", settings_table(outcome, outcome.guide)))
    most = f" (the best {MOST_BARS})" if len(outcome.done) > MOST_BARS else ""
    part.figures = drawn(draw_ranks(outcome, figures), f"Average rank over the tasks{most}, and the rank on each")
    sections.append(part)
    part = table_section("Over hyper-parameters", robustness_table(outcome))
    part.text = [_robustness_text(outcome)]
    part.figures = [
        *drawn(draw_profiles(outcome, figures), f"Performance profiles, {guide}: upper left is better"),
        *drawn(draw_scatter(outcome, figures), f"Every setting on two tasks, {guide}: upper right is better; the lines "
                                               "are the single-task networks that Δ_MTL is measured against"),
        *draw_parameters(outcome, figures),
        *drawn(draw_weights(outcome, figures), f"{QUANTITIES[outcome.quantity]} over constant weights, {guide}"),
    ]
    sections.append(part)
    if outcome.split != outcome.guide:
        part = _first_rows(table_section(f"All settings, {outcome.split} split",
                                         settings_table(outcome, outcome.split)))
        part.text = [_NOT_BY_TEST, *part.text]
        sections.append(part)
    if outcome.failed:
        sections.append(Section("Failed runs", header=("run", "reason"), rows=list(outcome.failed.items())))
    table = chosen or settings_table(outcome, outcome.guide)
    sections += [
        Section("LaTeX", code=table.latex(), code_title="the first table as LaTeX"),
        Section("Runs", code="\n".join(" ".join(run.argv) for run in outcome.plan.runs), code_title="command lines"),
        Section("Configuration", code=yaml.safe_dump(as_dict(outcome.plan.config), sort_keys=False,
                                                     allow_unicode=True)),
    ]
    return sections
