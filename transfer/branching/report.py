"""``report.html`` of a search for a branched network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from harness.config import as_dict
from harness.report import Section, write_report
from harness.run import Run
from transfer.branching.costs import RESOURCES
from transfer.report import table_section
from transfer.table import build_table


def write_branch_report(run: Run, search: Mapping[str, Any], rows: Sequence[Mapping[str, Any]] = ()) -> None:
    """The results, the groupings, the affinities, and how the search went.

    Args:
        run: the folder; its pictures are drawn.
        search: what ``search.json`` says.
        rows: results of the single-task networks and of the groupings, as far as they were trained.
    """
    groupings = search["groupings"]
    facts = [(name, "-".join(map(str, found["groups"])),
              *(f"{100 * found['share'][resource]:.1f} %" for resource in RESOURCES), f"{found['clustering_cost']:.4f}")
             for name, found in groupings.items()]
    how = (f"{search['trees']:,} trees of {len(search['tasks'])} tasks at {len(facts[0][1].split('-'))} stages. "
           f"The beam's tree has clustering cost {search['beam_cost']:.4f}; ")
    if search["exact"]:
        how += f"the best of all trees costs {search['gap']:.4f} less."
    else:
        how += "there are too many trees to search all, so how far it is from the best is not known."
    sections = [
        *([table_section("Results", build_table(rows))] if rows else []),
        Section("Groupings", [f"{how} The search took {search['seconds']:.1f} s."],
                ("grouping", "groups by stage", "parameters", "multiply-adds", "clustering cost"), facts,
                [(run.figures / f"tree_{name}.png", _CAPTIONS[name]) for name in groupings]),
        Section("Task affinity", figures=[(run.figures / "affinity.png", "Spearman's correlation of the networks' "
                                           "representation dissimilarities; at the right, how often two tasks find "
                                           "the same examples difficult")]),
        Section("Configuration", code=yaml.safe_dump(as_dict(run.config), sort_keys=False)),
    ]
    write_report(run.folder / "report.html", f"Branched network {run.folder.name}", sections,
                 f"Tasks grouped by affinity within {search['budget']:g} of the single-task networks' "
                 f"{search['resource']}")


_CAPTIONS = {
    "affinity": "By task affinity: the least clustering cost within the budget",
    "shared": "All tasks share everything",
    "split": "One network per task",
    "random": "Drawn evenly among the other trees with as many groups",
    "fafs": "By difficult examples, with as many groups",
}
