"""Architectures whose tasks are trained one after another, from the command line."""

from __future__ import annotations

import json
import os
import signal

import pytest
import torch

from harness.checkpoint import load_file
from harness.run import read_metrics

OPTIONS = ["--model.name=progressive", "--model.head=linear", "--tasks=[depth, normals]", "--data.train_count=8",
           "--epochs=2", "--optimizer.name=sgd", "--optimizer.lr=0.01"]
"""Two steps in an epoch, two epochs for each of two columns: 8 steps."""


def column(path, task):
    """Weights and statistics of a task's column in a checkpoint."""
    state = load_file(path)["model"]
    return {name: value for name, value in state.items() if name.split(".")[1] == task}


def equal(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def test_columns_are_trained_in_turn(programs):
    """Each has all epochs and a whole learning-rate schedule; what is trained stays as it is."""
    done = programs.main("transfer", "--output=run", *OPTIONS, "--loop.keep=9", "--evaluation.every=1")
    assert done.code == 0, done.err
    folder = programs.folder / "run"
    lines = [line for line in read_metrics(folder) if "lr" in line]
    assert [line["step"] for line in lines] == list(range(1, 9))
    for number, line in enumerate(lines):
        losses = {key for key in line if key.startswith("loss_")}
        assert losses == ({"loss_depth"} if number < 4 else {"loss_normals"})
    rates = [line["lr"] for line in lines]
    assert rates[:4] == rates[4:] and rates[0] == rates[1] == 0.01 > rates[2]
    saved = [*sorted((folder / "checkpoints").glob("step_*.pt")), folder / "checkpoints" / "last.pt"]
    assert [load_file(path)["step"] for path in saved] == [2, 4, 6, 8]
    depth, normals = ([column(path, task) for path in saved] for task in ("depth", "normals"))
    assert depth[0] and any("adapters" in name for name in normals[0])
    assert not equal(depth[0], depth[1]) and equal(depth[1], depth[2]) and equal(depth[2], depth[3])
    assert equal(normals[0], normals[1]) and not equal(normals[1], normals[2]) and not equal(normals[2], normals[3])
    scores = [line["val"] for line in read_metrics(folder) if "val" in line]
    assert len(scores) == 4 and scores[1]["depth"] == scores[3]["depth"]
    results = json.loads((folder / "results.json").read_text())
    assert set(results["metrics"]) == {"depth", "normals"} and results["architecture"] == "progressive"


@pytest.mark.parametrize("stop", [pytest.param(2, marks=pytest.mark.slow), 5])
def test_goes_on_bit_for_bit_in_either_phase(programs, same_runs, monkeypatch, stop):
    from transfer.engine import Transfer

    step = Transfer.train_step

    def interrupted(self, batch):
        if self.step == stop:
            os.kill(os.getpid(), signal.SIGTERM)
        step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Transfer, "train_step", interrupted)
        assert programs.main("transfer", "--output=stopped", *OPTIONS).code == 143
    assert programs.main("transfer", "--output=whole", *OPTIONS).code == 0
    rest = programs.main("transfer", "--output=stopped", *OPTIONS)
    assert rest.code == 0 and f"at step {stop + 1}" in rest.out
    same_runs(programs.folder / "whole", programs.folder / "stopped")


def test_auxiliary_columns_come_first(programs):
    options = [*OPTIONS, "--tasks=[depth]", "--auxiliary=[normals]", "--epochs=1"]
    done = programs.main("transfer", "--output=run", *options)
    assert done.code == 0, done.err
    lines = read_metrics(programs.folder / "run")
    assert ["loss_normals" in line for line in lines] == [True, True, False, False]


def test_strategies_that_need_all_losses_are_refused(programs):
    wrong = programs.main("transfer", "--output=run", *OPTIONS, "--balance.name=fixed").error
    assert wrong == ("architecture 'progressive' trains its tasks one after another, which leaves balance 'fixed' "
                     "nothing to do: set --balance.name equal")


def test_segnet_and_its_attention_from_the_command_line(programs):
    tiny = "--model.backbone_options={channels: [4, 4, 8, 8, 8], depths: [1, 1, 1, 1, 1]}"
    options = ["--model.name=mtan_segnet", "--model.backbone=segnet", tiny, "--tasks=[depth, normals]", "--epochs=1"]
    done = programs.main("transfer", "--output=run", *options)
    assert done.code == 0, done.err
    results = json.loads((programs.folder / "run" / "results.json").read_text())
    assert results["backbone"] == "segnet"
    wrong = programs.main("transfer", "--output=other", "--model.name=mtan_segnet").error
    assert "works on the blocks of SegNet" in wrong and "choose backbone segnet" in wrong
