"""Which runs a sweep has: axes, bundles, grids, seeds; and what it refuses."""

from __future__ import annotations

import itertools
import json
import math

import pytest
import yaml

from harness.errors import UserError
from transfer.sweeping.config import read_sweep
from transfer.sweeping.plan import make_plan
from transfer.sweeping.space import compositions, expand, flatten, weight_grid, words


def test_axes_are_combined_in_their_order():
    settings = expand({"optimizer.lr": [0.1, 0.01], "balance": ["equal", "fixed"], "epochs": [1]})
    assert [setting.options for setting in settings] == [
        {"optimizer.lr": lr, "balance.name": name, "epochs": 1} for lr in (0.1, 0.01) for name in ("equal", "fixed")]
    assert settings[1].label == "lr 0.1, fixed, epochs 1"
    assert expand({})[0].options == {}


def test_bundles_have_axes_and_grids_of_their_own():
    settings = expand({
        "strategy": {
            "plain": {"balance": {"name": "equal"}},
            "dwa": {"balance.name": "dwa", "axes": {"balance.temperature": [2, 5]}},
            "search": {"grid": {"steps": 3}},
            "base": None,
        },
        "optimizer.lr": [0.1],
    }, tasks=["a", "b"])
    assert [setting.label for setting in settings] == [
        "plain, lr 0.1", "dwa, temperature 2, lr 0.1", "dwa, temperature 5, lr 0.1",
        "search, a 0.667 b 1.33, lr 0.1", "search, a 1.33 b 0.667, lr 0.1", "base, lr 0.1"]
    assert settings[2].options == {"balance.name": "dwa", "balance.temperature": 5, "optimizer.lr": 0.1}
    assert settings[3].options["balance.weights"] == {"a": pytest.approx(2 / 3, abs=1e-6),
                                                      "b": pytest.approx(4 / 3, abs=1e-6)}
    assert settings[4].options["balance.name"] == "fixed"


@pytest.mark.parametrize(("total", "parts", "least"), [(5, 2, 0), (5, 2, 1), (6, 3, 1), (4, 3, 0), (3, 3, 1),
                                                       (2, 3, 1)])
def test_compositions_by_trying_all(total, parts, least):
    expected = [row for row in itertools.product(range(total + 1), repeat=parts)
                if sum(row) == total and min(row) >= least]
    assert list(compositions(total, parts, least)) == expected


def test_grid_is_a_simplex():
    weights = weight_grid({"tasks": ["a", "b", "c"], "steps": 6})
    assert len(weights) == math.comb(5, 2) and {"a": 1.0, "b": 1.0, "c": 1.0} in weights
    assert all(sum(row.values()) == pytest.approx(3) and min(row.values()) >= 0.5 for row in weights)
    corners = weight_grid({"steps": 2, "total": 1, "zeros": True}, ["a", "b"])
    assert corners == [{"a": 0, "b": 1}, {"a": 0.5, "b": 0.5}, {"a": 1, "b": 0}]


@pytest.mark.parametrize(("axes", "grid", "message"), [
    ({"epochs": 3}, None, "axis 'epochs' has the values 3"),
    ({"epochs": []}, None, "axis 'epochs' has the values []"),
    ({"epochs": [3, 3]}, None, "axis 'epochs' has the value 3 twice"),
    ({"seed": [1, 2]}, None, "option seed is the sweep's own: use seeds"),
    ({"s": {"x": {"output": "y"}}}, None, "bundle 'x' of axis 's': option output is the sweep's own"),
    ({"s": {"x": 3}}, None, "bundle 'x' of axis 's' is 3"),
    ({"s": {"x": {"epochs": 1}}, "epochs": [1]}, None, "option epochs is set by bundle 'x' of axis 's' and by axis"),
    ({"s": {"x": {"axes": {"s": {"y": {}}}}}}, None, "axis s is there twice"),
    ({"balance.name": ["equal"]}, {"steps": 3}, "option balance.name is set by axis 'balance.name' and by grid"),
    ({}, {"step": 3}, "grid has no field 'step' (did you mean 'steps'?)"),
    ({}, {"tasks": ["a"]}, "grid.tasks is ['a']"),
    ({}, {"steps": 1}, "grid has steps 1"),
])
def test_what_cannot_be_expanded(axes, grid, message):
    with pytest.raises(UserError) as caught:
        expand(axes, grid, ["a", "b"])
    assert message in str(caught.value)


def test_words_are_read_back():
    options = {"tasks": ["a", "b"], "balance.weights": {"a": 0.5}, "epochs": 3, "compile": False, "model.weights": None,
               "balance.name": "fixed"}
    assert words(options) == ['--tasks=["a", "b"]', '--balance.weights={"a": 0.5}', "--epochs=3", "--compile=false",
                              "--model.weights=null", "--balance.name=fixed"]
    assert flatten({"balance": "dwa", "data": {"name": "scenes"}, "x": {"y": 1}}, "here") == {
        "balance.name": "dwa", "data.name": "scenes", "x": {"y": 1}}


TINY = {"tasks": ["depth", "normals"], "model": {"backbone": "resnet18", "head": "fcn",
                                                 "backbone_options": {"channels": [8, 8, 16, 16]}},
        "data": {"train_count": 4, "val_count": 2, "test_count": 2, "size": 48}, "epochs": 2, "threads": 1}


@pytest.fixture(name="plan")
def plan_fixture(tmp_path, monkeypatch):
    """A function that plans a sweep over a tiny base from words of a command line."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(TINY))

    def plan(*argv: str, **sweep):
        (tmp_path / "s.yaml").write_text(yaml.safe_dump({"base": "base.yaml", **sweep}, sort_keys=False))
        return make_plan(*read_sweep(["--config", "s.yaml", *argv]))

    return plan


def test_a_plan_has_every_run_once(plan, tmp_path):
    made = plan("--axes.optimizer.lr", "[0.1, 0.01]", "--seeds=[3, 4]", "--", "--epochs", "1",
                axes={"balance.name": ["equal", "fixed"]})
    assert [entry.label for entry in made.entries] == ["equal, lr 0.1", "equal, lr 0.01", "fixed, lr 0.1",
                                                       "fixed, lr 0.01"]
    assert [entry.method for entry in made.entries] == ["equal", "equal", "fixed", "fixed"]
    assert [entry.label for entry in made.singles] == ["single-task, lr 0.1", "single-task, lr 0.01"]
    assert [entry.recipe for entry in made.entries] == [0, 1, 0, 1]
    runs = made.runs
    assert len(runs) == 2 * (4 + 2 * 2) == len({run.name for run in runs})
    assert [run.config.seed for run in runs] == [3] * 8 + [4] * 8
    assert all(run.config.epochs == 1 and run.config.baseline == "none" for run in runs)
    assert all(run.config.evaluation.every == 1 for run in runs) and len(made.notes) == 1
    assert {run.config.model.name for run in runs[:4]} == {"single_task"}
    made.write()
    cells = json.loads((tmp_path / "outputs" / "s" / "cells.json").read_text())
    assert cells == made.cells() and cells[0].keys() == {"name", "argv", "folder"}

    from harness.config import as_dict, load
    from transfer.config import TransferConfig

    for run, cell in zip(runs, cells, strict=True):
        read = load(TransferConfig, cell["argv"][1:])
        assert read.output == cell["folder"] == f"outputs/s/runs/{run.name}"
        assert as_dict(read) == {**as_dict(run.config), "output": cell["folder"]}


def test_folders_change_with_what_results_depend_on(plan):
    def names(*argv, **sweep):
        return [run.name for run in plan("--baseline=none", *argv, **{"seeds": 2, **sweep}).runs]

    first = names()
    assert names() == first == names("--", "--loop.log_steps=3") == names(jobs=3)
    assert not set(names(options={"optimizer": {"lr": 0.5}})) & set(first)
    assert names(seeds=3)[:2] == first


@pytest.mark.parametrize(("argv", "sweep", "message"), [
    ((), {"axes": {"balance.temprature": [1]}}, "axis 'balance.temprature': unknown option --balance.temprature"),
    ((), {"axes": {"optimizer.lr": ["fast"]}}, "axis 'optimizer.lr': option --optimizer.lr: expected"),
    ((), {"axes": {"s": {"x": {"balance.name": "equl"}}}}, "unknown balance 'equl' (did you mean 'equal'?)"),
    ((), {"axes": {"s": {"x": {"balance.name": "fixed", "balance.weights": {"dept": 1}}}}},
     "bundle 'x' of axis 's': balance.weights has a weight for 'dept' (did you mean 'depth'?)"),
    ((), {"axes": {"optimizer.lr": [1]}, "compare": ["lr"]}, "compare: there is no axis 'lr'"),
    ((), {"options": {"epoch": 1}, "seeds": 2}, "unknown option --epoch (did you mean '--epochs'?)"),
    (("--", "--epoch=1"), {"seeds": 2}, "unknown option --epoch"),
    ((), {"seed": 2}, "unknown field seed in s.yaml (did you mean 'seeds'?)"),
    ((), {}, "there is nothing to sweep over"),
    (("--seeds=[1, 1]",), {}, "seeds is [1, 1]"),
    (("--axes.epochs",), {}, "--axes.epochs has no values"),
    (("--base=none.yaml",), {"seeds": 2}, "base: there is no file none.yaml"),
])
def test_mistakes_are_told_before_anything_starts(plan, tmp_path, argv, sweep, message):
    with pytest.raises(UserError) as caught:
        plan("--baseline=none", *argv, **sweep)
    assert message in str(caught.value)
    assert not (tmp_path / "outputs").exists()
