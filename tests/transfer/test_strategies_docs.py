"""``docs/strategies.md`` tells of every strategy what its code says, and its examples work."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch

from harness.config import option_defaults
from harness.registry import load_plugin
from transfer.strategies import build_balance
from transfer.strategies.base import Balance, BalanceConfig, JacobianBalance, LossBalance
from transfer.strategies.groups import ScheduleConfig
from transfer.strategies.registry import BALANCES, PARTITIONS, SCHEDULES

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "strategies.md").read_text(encoding="utf-8")


def tables():
    """Rows by their first cell, as ``{heading: cell}``, of all tables; a name that comes twice is a mistake."""
    rows, header = {}, None
    for line in TEXT.splitlines():
        if not line.startswith("|"):
            header = None
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if header is None:
            header = cells
        elif set(cells[0]) != {"-"} and header[0] in ("name", "option", "option of every schedule"):
            name = cells[0].strip("`")
            assert (header[0], name) not in rows and len(cells) == len(header), line
            rows[header[0], name] = dict(zip(header[1:], cells[1:], strict=True))
    return rows


ROWS = tables()


def number(value):
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def options(thing):
    """As in the table: ```c` 0.5, `leak```; – for none."""
    found = [f"`{name}`" if value is None else f"`{name}` {number(value)}"
             for name, value in option_defaults(thing).items()]
    return ", ".join(found) or "–"


def needs(rule):
    """What a rule asks for, as in the table."""
    if issubclass(rule, LossBalance):
        asked = [("κ", rule.wants_indicators), ("epoch means", rule.end_of_epoch is not Balance.end_of_epoch),
                 ("another forward", rule.looks_again)]
        return ", ".join(["losses", *(what for what, wanted in asked if wanted)])
    first = "all gradients" if issubclass(rule, JacobianBalance) else "Gramian"
    asked = [("losses", rule.needs_losses), ("two parts", rule.draws == 2)]
    return ", ".join([first, *(what for what, wanted in asked if wanted)])


def test_the_tables_have_all_names_and_no_others():
    told = {name for kind, name in ROWS if kind == "name"}
    there = {name for registry in (BALANCES, SCHEDULES, PARTITIONS) for name in registry.choices()
             if "<" in name or registry.get(name).__module__.startswith("transfer.")}  # not what plugins of tests add
    assert told == there


@pytest.mark.parametrize("name", BALANCES.names())
def test_balance(name):
    rule, row = BALANCES.get(name), ROWS["name", name]
    assert (row["needs"], row["options"]) == (needs(rule), options(rule))
    if issubclass(rule, LossBalance):
        assert (row["parts"], row["apart"]) == tuple(
            "yes" if yes else "no" for yes in (rule.linear or rule.affine, rule.separable))
    else:
        assert row["level"] == rule.level


@pytest.mark.parametrize("registry, name", [(registry, name) for registry in (SCHEDULES, PARTITIONS)
                                            for name in registry.names()],
                         ids=lambda value: value if isinstance(value, str) else value.kind)
def test_schedule_and_partition(registry, name):
    assert ROWS["name", name]["options"] == options(registry.get(name))


@pytest.mark.parametrize("kind, common", [("option", BalanceConfig), ("option of every schedule", ScheduleConfig)])
def test_common_options(kind, common):
    told = {name: row["default"] for (heading, name), row in ROWS.items() if heading == kind}
    assert told.keys() == {field.name for field in dataclasses.fields(common)}
    for field in dataclasses.fields(common):
        default = getattr(common(), field.name)
        assert told[field.name] == ("the rule's" if default is None and common is BalanceConfig else
                                    "none" if default is None else number(default))


def test_rules_that_the_text_lists():
    """They are named in "What is refused" and among the options."""
    assert {name for name in BALANCES.names() if not getattr(BALANCES.get(name), "separable", True)} == {
        "famo", "stch", "cosmos", "pbi", "geometric_mean"}
    assert {name for name in BALANCES.names() if "last" not in getattr(BALANCES.get(name), "levels", ("last",))} == {
        "graddrop", "excess_mtl"}
    assert {name for name in BALANCES.names() if getattr(BALANCES.get(name), "scale_heads", False)} == {"gradnorm"}


def examples():
    return re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_rule_of_a_plugin(programs):
    (programs.folder / "equal_norms.py").write_text(examples()[0])
    done = programs.main("transfer", "--output=run", "--plugin=equal_norms.py", "--balance.name=equal_norms",
                         "--tasks=[depth, normals]", "--epochs=1")
    assert done.code == 0, done.err
    line = json.loads((programs.folder / "run" / "metrics.jsonl").read_text().splitlines()[0])
    lengths = [line["weights"][task] * line["gradient_norm"][task] for task in ("depth", "normals")]
    assert lengths[0] == pytest.approx(lengths[1]) == pytest.approx(sum(line["gradient_norm"].values()) / 2)
    page = (programs.folder / "run" / "report.html").read_text()
    assert "<h2>Strategy" in page and "with respect to all shared parameters" in page
    load_plugin(programs.folder / "equal_norms.py")
    direction = build_balance("equal_norms", ["a", "b"]).combine(torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
    torch.testing.assert_close(direction, torch.tensor([2.0, 2.0]))


def test_calling_a_rule():
    space = {}
    exec(examples()[1], space)
    assert space["direction"].shape == (3,) and space["rule"].c == 0.4
