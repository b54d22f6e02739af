"""A sweep from its runs to what it leaves: choosing, tables, failures, and going on after a kill."""

from __future__ import annotations

import json
import math
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from harness.errors import UserError
from transfer.delta import delta_mtl
from transfer.sweeping.config import read_sweep
from transfer.sweeping.outcome import Outcome, validation_metrics
from transfer.sweeping.plan import make_plan
from transfer.sweeping.report import markdown, write_outcome

REPOSITORY = Path(__file__).resolve().parents[2]
HIGHER = {"depth": False, "normals": False}
PRIMARY = {"depth": "RMSE", "normals": "mean_angle"}
TINY = {"tasks": ["depth", "normals"], "model": {"backbone": "resnet18", "head": "fcn",
                                                 "backbone_options": {"channels": [8, 8, 16, 16]}},
        "data": {"train_count": 12, "val_count": 4, "test_count": 4, "size": 48}, "augmentation": {"size": 32},
        "epochs": 2, "batch_size": 4, "threads": 1, "workers": 0, "evaluation": {"panels": 2},
        "loop": {"log_steps": 1, "trackers": []}}


def fake(run, val, test, select="last"):
    """What a finished run leaves, with these primary metrics."""
    metrics = [{task: {PRIMARY[task]: split[task], "abs": 1.0} for task in run.config.tasks} for split in (val, test)]
    early = {task: {PRIMARY[task]: 1e-3} for task in run.config.tasks}
    run.folder.mkdir(parents=True, exist_ok=True)
    lines = [{"step": 1, "val": early, "score": 0.1}, {"step": 2, "val": metrics[0], "score": 0.2}, {"step": 2}]
    (run.folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run.folder / "results.json").write_text(json.dumps({
        "architecture": run.config.model.name, "metrics": metrics[1], "split": run.config.evaluation.split,
        "primary": {task: PRIMARY[task] for task in run.config.tasks},
        "labels": {task: {"task": task, "classes": [], "parents": {}} for task in run.config.tasks},
        "higher_is_better": {task: HIGHER[task] for task in run.config.tasks}}))


@pytest.fixture(name="plan")
def plan_fixture(tmp_path, monkeypatch):
    """A function that plans a sweep over a tiny base."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(TINY))

    def plan(*argv, **sweep):
        (tmp_path / "s.yaml").write_text(yaml.safe_dump({"base": "base.yaml", **sweep}, sort_keys=False))
        return make_plan(*read_sweep(["--config", "s.yaml", *argv]))

    return plan


def numbers(name: str) -> tuple[dict[str, float], dict[str, float]]:
    """Metrics of a run by its name, other on each split."""
    lr = 0.1 if "lr-0.1-" in name else 0.2
    seed = int(name[-1])
    val = {"depth": 0.5 + (0.1 if lr == 0.1 else 0) + 0.01 * seed, "normals": 20.0 + 3 * (lr == 0.2) + seed}
    test = {"depth": 0.6 - (0.1 if lr == 0.1 else 0) + 0.01 * seed, "normals": 25.0 - 3 * (lr == 0.2) + seed}
    if name.startswith("fixed"):
        val = {task: value * (0.5 if lr == 0.2 else 1.5) for task, value in val.items()}
    return val, test


def test_settings_are_chosen_on_validation_and_reported_on_test(plan, tmp_path):
    made = plan(axes={"balance.name": ["equal", "fixed"], "optimizer.lr": [0.1, 0.2]}, seeds=2)
    for run in made.runs:
        fake(run, *numbers(run.name))
    outcome = Outcome(made)
    val, test = ({(entry.label, seed): {task: value for run in runs for task, value in numbers(run.name)[i].items()
                                        if task in run.config.tasks}
                  for entry in (*made.singles, *made.entries) for seed, runs in entry.runs.items()} for i in (0, 1))

    def mean(table, label, task):
        return statistics.fmean(table[label, seed][task] for seed in (0, 1))

    # each task's single-task recipe is its best on validation: the other learning rate for each
    labels = {"depth": "single-task, lr 0.2", "normals": "single-task, lr 0.1"}
    assert {task: row.label for task, row in outcome.references.items()} == labels
    reference = {split: {task: mean(table, label, task) for task, label in labels.items()}
                 for split, table in (("val", val), ("test", test))}
    for row in outcome.settings:
        for split, table in (("val", val), ("test", test)):
            expected = [delta_mtl(table[row.label, seed], reference[split], HIGHER) for seed in (0, 1)]
            assert outcome.deltas(row, split) == pytest.approx(expected)
    best = max(made.entries, key=lambda entry: statistics.fmean(
        delta_mtl(val[entry.label, seed], reference["val"], HIGHER) for seed in (0, 1)))
    assert outcome.winner.label == best.label == "fixed, lr 0.2"
    assert [(method, row.label) for method, row, *_ in outcome.benchmark] == [
        ("single-task", "single-task, each task's best"), ("equal", "equal, lr 0.2"), ("fixed", "fixed, lr 0.2")]

    # rank and score of all rows on validation, among the chosen ones on test
    ranks = {}
    for row in outcome.rows:
        places = [sorted(mean(val, other.label, task) for other in outcome.rows) for task in HIGHER]
        ranks[row.label] = statistics.fmean(
            statistics.fmean(i + 1 for i, value in enumerate(places[n]) if value == mean(val, row.label, task))
            for n, task in enumerate(HIGHER))
        assert row.rank == pytest.approx(ranks[row.label])
    # depth on test is .605 in all three; normals 25.5 for the single-task network, 22.5 for the others
    assert [rank for *_, rank, _ in outcome.benchmark] == [2.5, 1.75, 1.75]
    assert [score for *_, score in outcome.benchmark] == pytest.approx([0.5, 1, 1])

    write_outcome(outcome)
    folder = tmp_path / "outputs" / "s"
    found = json.loads((folder / "sweep.json").read_text())
    assert found["winner"] == "fixed, lr 0.2" and found["chosen_on"] == "val" and found["split"] == "test"
    shown = next(one for one in found["settings"] if one["label"] == "fixed, lr 0.2")
    depths = [test["fixed, lr 0.2", seed]["depth"] for seed in (0, 1)]
    assert shown["metrics"]["test"]["depth"] == {"mean": pytest.approx(statistics.fmean(depths)), "values": depths,
                                                 "spread": pytest.approx(statistics.stdev(depths))}
    table = (folder / "table.md").read_text()
    assert f"{statistics.fmean(depths):.3f} ± {statistics.stdev(depths):.3f}" in table
    assert "never on the test split" in table and "chosen on the validation split" in table
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png") == 4 and "http" not in page


def test_robustness_counts_failed_settings(plan):
    made = plan("--baseline=none", axes={"balance.name": ["equal", "fixed"], "optimizer.lr": [0.1, 0.2, 0.3, 0.4]})
    values = {"equal": [1.0, 1.1, 1.2, 1.3], "fixed": [0.9, 2.0, 3.0, None]}
    failed = {}
    for entry in made.entries:
        (run,), value = entry.runs[0], values[entry.method][made.entries.index(entry) % 4]
        if value is None:
            failed[run.name] = "loss is nan"
        else:
            fake(run, {"depth": value, "normals": value}, {"depth": 1.0, "normals": 1.0})
    outcome = Outcome(made, failed)
    assert outcome.criterion == outcome.quantity == "score" and outcome.winner.label == "fixed, lr 0.1"
    losses = outcome.losses("depth")
    assert losses["equal"] == pytest.approx([100 / 9, 200 / 9, 300 / 9, 400 / 9])
    assert losses["fixed"][:3] == pytest.approx([0, 1100 / 9, 2100 / 9]) and losses["fixed"][3] == math.inf
    robust = outcome.robustness
    assert robust["fixed"]["failed"] == 1 and robust["fixed"]["settings"] == 4
    assert robust["fixed"]["profile"]["share"] == [0.25, 0.5, 0.75]
    assert robust["equal"]["profile_area"] > robust["fixed"]["profile_area"]
    assert robust["equal"]["share_of_top_fifth"] == 0.5  # two of eight: fixed .9, equal 1.
    assert f"- {list(failed)[0]}: loss is nan" in markdown(outcome) and "1 run failed." in markdown(outcome)


def test_grid_without_choosing(plan, tmp_path):
    made = plan("--criterion=none", "--baseline=none", grid={"steps": 4})
    assert not made.notes and made.runs[0].config.evaluation.every == 0
    for number, run in enumerate(made.runs):
        fake(run, {}.fromkeys(HIGHER, 9.0), {"depth": 1.0 + number, "normals": 3.0 - number})
    outcome = Outcome(made)
    assert outcome.winner is None and not outcome.benchmark and outcome.guide == "test"
    assert [row.score for row in outcome.rows] == [0.5, 0.5, 0.5] and [row.rank for row in outcome.rows] == [2, 2, 2]
    write_outcome(outcome)
    assert (tmp_path / "outputs" / "s" / "figures" / "weights.png").exists()
    assert "Nothing is chosen" in (tmp_path / "outputs" / "s" / "table.md").read_text()


def test_validation_metrics_are_of_the_weights_that_were_kept(plan, tmp_path):
    lines = [{"step": 1, "val": {"a": {"m": 1}}, "score": 0.5}, {"step": 2, "val": {"a": {"m": 2}}, "score": 0.9},
             {"step": 3, "val": {"a": {"m": 3}}, "score": 0.9}, {"step": 4, "val": {"a": {"m": 4}}, "score": None},
             {"step": 5}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert validation_metrics(tmp_path, "best") == {"a": {"m": 2}}
    assert validation_metrics(tmp_path, "last") == {"a": {"m": 4}}
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(UserError, match="was never validated"):
        validation_metrics(tmp_path, "last")


def test_listing_writes_nothing(programs, tmp_path):
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(TINY))
    options = ["--name=l", "--base=base.yaml", "--axes.optimizer.lr", "[0.1, 0.2]", "--seeds=2", "--baseline=none"]
    listed = programs.call("transfer.sweep", *options, "--dry-run")
    assert listed.code == 0 and "2 settings, 4 runs, 0 finished, in outputs/l" in listed.out, listed.err
    assert listed.out.count("to run") == 4 and "lr 0.1: --optimizer.lr=0.1" in listed.out
    assert not (tmp_path / "outputs").exists()
    empty = programs.call("transfer.sweep", *options, "--table")
    assert empty.code == 0 and "nothing is finished" in empty.out
    assert json.loads((tmp_path / "outputs" / "l" / "cells.json").read_text())
    assert programs.call("transfer.sweep").error.startswith("there is nothing to sweep over")


@pytest.mark.slow
def test_a_sweep_goes_on_after_a_kill_and_leaves_a_failure_alone(tmp_path, wait_for_step):
    (tmp_path / "base.yaml").write_text(yaml.safe_dump({**TINY, "epochs": 40}))
    command = [sys.executable, "-m", "transfer.sweep", "--name=k", "--base=base.yaml", "--axes.balance.name",
               "[equal, fixed]", "--axes.optimizer.lr", "[0.001, 1e+30]", "--jobs=1", "--baseline=none"]

    def start():
        return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                env={**os.environ, "PYTHONPATH": str(REPOSITORY)})

    folder = tmp_path / "outputs" / "k"
    first = start()
    while not (folder / "cells.json").exists():
        assert first.poll() is None, first.stdout.read()
        time.sleep(0.05)
    runs = [tmp_path / cell["folder"] for cell in json.loads((folder / "cells.json").read_text())]
    wait_for_step(first, runs[0], 3)
    first.send_signal(signal.SIGTERM)
    out, _ = first.communicate(timeout=120)
    assert first.returncode == 143 and "the same command goes on from here" in out
    assert (runs[0] / "checkpoints" / "last.pt").exists() and not (runs[0] / "results.json").exists()

    second = start()
    wait_for_step(second, runs[0], 10)
    second.kill()
    second.communicate()
    third = start()  # the run of the killed sweep saves and ends by itself
    out, _ = third.communicate(timeout=600)
    failed = [run for run in runs if not (run / "results.json").exists()]
    assert third.returncode == 1 and len(failed) == 2, out
    assert all("1e+30" in run.name and f"failed: {run.name}: error: " in out for run in failed), out
    found = json.loads((folder / "sweep.json").read_text())
    assert set(found["failed"]) == {run.name for run in failed} and found["winner"] in ("equal, lr 0.001",
                                                                                        "fixed, lr 0.001")
    steps = [json.loads(line)["step"] for line in (runs[0] / "metrics.jsonl").read_text().splitlines()]
    assert sorted(set(steps)) == list(range(1, 121))
    assert "goes on" not in out and (folder / "report.html").exists()
    log = (folder / "logs" / f"{runs[0].name}.log").read_text()
    assert log.count("$ ") == 3 and "continues" in log

    again = start()
    out, _ = again.communicate(timeout=300)
    assert again.returncode == 1 and "2 of 4 runs are finished already" in out
