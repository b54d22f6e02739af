"""Fine-tuning and frozen features of one backbone in one table."""

from __future__ import annotations

import json
import sys

import pytest
from test_table import cells, result

from harness.errors import UserError
from transfer import compare
from transfer.frozen import read_frozen
from transfer.table import build_table


def measurement(digest: str | None, **changes):
    return {"digest": digest, "protocol": "knn", "data": "scenes", "metrics": {"top1": 61.26, "spread": 3.0},
            "columns": {"top1": "kNN [%]", "spread": "spread"}, "descriptive": ["spread"], **changes}


@pytest.fixture
def evaluation(tmp_path):
    folder = tmp_path / "evaluation"
    folder.mkdir()
    found = [measurement("abc-resnet18"), measurement("ffff", metrics={"top1": None, "spread": 1.0}), measurement(None)]
    (folder / "results.json").write_text(json.dumps({"kind": "evaluation", "measurements": found}))
    return folder


def test_figures_stand_beside_the_runs_from_the_same_file(evaluation):
    frozen = read_frozen([evaluation])
    assert frozen == {"abc": {"frozen: kNN [%] ↑": 61.26, "frozen: spread": 3.0}, "ffff": {"frozen: spread": 1.0}}
    header, _, random, ours = cells(build_table([result("baseline"), *(
        result("baseline", seed, weights="w", weights_digest="abc") for seed in (0, 1))], frozen))
    place = header.index("frozen: kNN [%] ↑")
    assert header[place - 1] == "depth RMSE [m] ↓" and header[place + 1] == "frozen: spread"
    assert random[place] == "–" and ours[place] == "61.3"  # one backbone, so no spread over the seeds


def test_what_was_measured_otherwise_has_a_heading_of_its_own(tmp_path):
    """Seeds are averaged; options, features and images are told apart."""
    some = [measurement("abc", seed=seed, metrics={"top1": 60.0 + seed}, options={"k": 20}) for seed in (0, 2)]
    others = [measurement("abc", metrics={"top1": 50.0}, options={"k": 5}),
              measurement("abc", metrics={"top1": 51.0}, options={"k": 20}, features={"layer": "layer3"})]
    (tmp_path / "results.json").write_text(json.dumps({"measurements": [*some, *others]}))
    found = read_frozen([tmp_path])["abc"]
    assert sorted(found.values()) == [50, 51, 61] and all(heading.endswith(" ↑") for heading in found)
    assert [heading for heading, value in found.items() if value == 51] == [
        "frozen: kNN [%] (k 20, features.layer layer3) ↑"]
    (tmp_path / "results.json").write_text(json.dumps({"measurements": some}))
    assert read_frozen([tmp_path, tmp_path]) == {"abc": {"frozen: kNN [%] ↑": 61}}


def run_compare(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["compare", *map(str, words)])
    return compare.main()


def test_the_command_tells_runs_from_evaluations(evaluation, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "results.json").write_text(json.dumps(result("baseline")))
    (run / "identity.json").write_text(json.dumps({"weights": "abc", "data": "x"}))
    page = tmp_path / "page.html"
    assert run_compare(monkeypatch, run, evaluation, "--report", page) == 0
    assert "frozen: kNN" in capsys.readouterr().out and "frozen: kNN" in page.read_text()
    (run / "identity.json").write_text(json.dumps({"weights": "other", "data": "x"}))
    assert run_compare(monkeypatch, run, evaluation) == 0
    assert "none of these runs started from a backbone that was evaluated" in capsys.readouterr().out
    with pytest.raises(UserError, match="name transfer runs too"):
        run_compare(monkeypatch, evaluation)
    (evaluation / "results.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        run_compare(monkeypatch, run, evaluation)
