"""Units of metrics: every one is the documented one, wherever a figure is shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from transfer.table import build_table
from transfer.tasks import build_task
from transfer.tasks.base import TASKS
from transfer.units import decimals, unit_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"


def documented() -> dict[str, dict[str, str]]:
    """Units by task and metric out of the table of the page."""
    found: dict[str, dict[str, str]] = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) != 4 or not cells[0].startswith("`"):
            continue
        units: dict[str, str] = {}
        for names, unit in re.findall(r"((?:`[\w.]+`(?:, )?)+) \(([^)]+)\)", cells[3]):
            units |= dict.fromkeys(re.findall(r"`([\w.]+)`", names), "" if unit == "–" else unit)
        copied = re.match(r"as `(\w+)`", cells[3])
        for task in re.findall(r"`(\w+)`", cells[0]):
            found[task] = found[copied[1]] if copied else units
    return found


def test_every_task_is_documented():
    assert sorted(documented()) == TASKS.names()


@pytest.mark.parametrize("kind", TASKS.names())
def test_every_metric_has_the_documented_unit(kind):
    task = build_task(kind, "it", ("a", "b"))
    metric = task.metric()
    metric._update_count = 1
    assert set(task.units) == set(metric.compute()) and task.primary in task.units
    assert dict(task.units) == documented()[kind]
    result = {"labels": {"it": {"task": kind}}}
    assert {name: unit_of([result], "it", name) for name in task.units} == documented()[kind]


def test_a_metric_of_one_name_has_the_unit_of_its_task():
    kinds = {"a": ("depth", "abs"), "b": ("inverse_depth", "abs"), "c": ("instance_center", "distance"),
             "d": ("heat_map", "L1"), "e": ("localization", "distance"), "f": ("unheard_of", "thing")}
    result = {"architecture": "baseline", "labels": {task: {"task": kind} for task, (kind, _) in kinds.items()},
              "metrics": {task: {metric: 0.25} for task, (_, metric) in kinds.items()},
              "primary": {task: metric for task, (_, metric) in kinds.items()},
              "higher_is_better": dict.fromkeys(kinds, False)}
    table = build_table([result])
    assert table.cells()[0][1:] == ["a abs [m] ↓", "b abs [1/m] ↓", "c distance [px] ↓", "d L1 ↓", "e distance [px] ↓",
                                    "f thing ↓"]
    assert table.cells()[1][1:] == ["0.250", "0.2500", "0.25", "0.2500", "0.25", "0.2500"]
    assert "b abs [1/m]" in table.latex() and r"[\%]" not in table.latex()


def test_without_the_kind_of_task_no_unit_is_guessed():
    assert unit_of([{}, {"labels": {}}], "depth", "RMSE") == "" and decimals("furlong") == decimals("")
    results = [{"labels": {}}, {"labels": {"left": {"task": "classification"}}}]
    assert unit_of(results, "*", "accuracy") == "%" and unit_of(results, "right", "accuracy") == ""
