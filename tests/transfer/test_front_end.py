"""Scores of initial predictions."""

from __future__ import annotations

import json

import pytest


def test_scores_of_every_scale_of_mti_net(programs):
    arguments = ("--model.name=mti_net", "--model.neck=fpn", "--model.neck_options={channels: 8}",
                 "--tasks=[semseg, depth]", "--auxiliary=[normals]", "--epochs=1")
    assert programs.main("transfer", "--name=mti", *arguments).code == 0
    done = programs.call("transfer.front_end", "mti")
    assert done.code == 0, done.err
    rows = json.loads((programs.folder / "outputs/mti/front_end.json").read_text())
    assert [row["name"] for row in rows] == [*(f"front-end 1/{stride}" for stride in (32, 16, 8, 4)), "final output"]
    results = json.loads((programs.folder / "outputs/mti/results.json").read_text())
    assert rows[-1]["metrics"] == results["metrics"]  # the same network on the same split
    depths = {row["metrics"]["depth"]["RMSE"] for row in rows}
    assert len(depths) == 5 and all(row["name"] in done.out for row in rows)


def test_image_tasks_are_left_out_of_initial_rows(programs):
    """They are predicted once: with their final value, every row's Δ would have it too."""
    arguments = ("--model.name=pad_net", "--model.channels=8", "--tasks=[depth, scene]", "--epochs=1",
                 "--baseline=auto")
    assert programs.main("transfer", "--name=pad", *arguments).code == 0
    done = programs.call("transfer.front_end", "pad")
    assert done.code == 0, done.err
    first, last = json.loads((programs.folder / "outputs/pad/front_end.json").read_text())
    results = json.loads((programs.folder / "outputs/pad/results.json").read_text())
    assert list(first["metrics"]) == ["depth"] and last["metrics"] == results["metrics"]
    single = results["single_task"]["depth"]["RMSE"]
    for row in (first, last):
        assert row["delta_mtl"] == pytest.approx(100 * (single - row["metrics"]["depth"]["RMSE"]) / single)
    assert "scene: predicted once; Δ_MTL is over the other tasks" in done.out
    assert first["metrics"]["depth"] != last["metrics"]["depth"]


def test_networks_without_initial_predictions_are_refused(programs):
    assert programs.main("transfer", "--name=plain", "--model.head=fcn", "--tasks=[depth]").code == 0
    assert "makes no initial predictions" in programs.call("transfer.front_end", "plain").error
    assert "no results.json" in programs.call("transfer.front_end", "nothing").error


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pad_net", "pap_net", "jtrl"])
def test_a_run_of_the_others(programs, name):
    arguments = (f"--model.name={name}", "--model.channels=8", "--tasks=[semseg, depth, scene]", "--epochs=1")
    done = programs.main("transfer", "--name=run", *arguments)
    assert done.code == 0, done.err
    assert programs.call("transfer.front_end", "run", "--split=val").code == 0
