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
