"""Which measurements are one figure of a table, and which are not."""

from __future__ import annotations

import json

import pytest

from harness.errors import UserError
from pretrain.evaluation.collection import build_table, read_measurements
from pretrain.evaluation.labelled import LABELLED
from pretrain.evaluation.report import write_evaluation_report

PRINT = "scenes-v3-512-256-256-{}-8-24-v1"


def measured(**changes):
    return {"id": "1", "checkpoint": "run", "architecture": "resnet18", "digest": "0123456789", "protocol": "toy",
            "options": {"k": 1}, "features": {}, "seed": 0, "data": "scenes", "fingerprint": PRINT.format(128),
            "metrics": {"spread": 3.0}, "columns": {"spread": "spread"}, "descriptive": [], "remarks": [], "files": [],
            "figures": [], "tables": {}, **changes}


@pytest.mark.parametrize(("changes", "rows"), [
    ({"id": "1"}, {"run": ["3.0"]}),  # the same in two folders
    ({"seed": 1, "digest": "abcdefghij"}, {"run": ["4.0 ± 1.4"]}),  # two seeds of one method
    ({"digest": "abcdefghij"}, {"run (012345)": ["3.0"], "run (abcdef)": ["5.0"]}),  # trained further since
    ({"fingerprint": PRINT.format(120)}, {"run": ["3.0", "5.0"]}),
    ({"fingerprint": "davis-" + 40 * "a" + "b"}, {"run": ["3.0", "5.0"]}),
    ({"options": {"k": 2}}, {"run": ["3.0", "5.0"]}),
])
def test_what_is_averaged_and_what_is_told_apart(tmp_path, changes, rows):
    for name, one in (("a", measured()), ("b", measured(**{"id": "2", "metrics": {"spread": 5.0}, **changes}))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps({"kind": "evaluation", "measurements": [one]}))
    table = build_table(read_measurements([tmp_path / "a", tmp_path / "b"]))
    assert {row[0]: [column.cell(number) for column in table.columns if column.cell(number) != "–"]
            for number, row in enumerate(table.rows)} == rows
    assert len({column.heading for column in table.columns}) == len(table.columns)
    write_evaluation_report(tmp_path / "page.html", read_measurements([tmp_path / "a", tmp_path / "b"]))
    assert all(f"<h2>toy on scenes: {name}</h2>" in (tmp_path / "page.html").read_text() for name in rows)


def test_what_a_stopped_evaluation_finished_is_compared(tmp_path):
    """Without results.json, or with one that a later start did not come to write."""
    for number, name in enumerate(("first", "second")):
        place = tmp_path / "measurements" / name
        place.mkdir(parents=True)
        (place / "measurement.json").write_text(json.dumps(measured(id=name, checkpoint=name)))
        if number == 0:
            (tmp_path / "results.json").write_text(json.dumps(
                {"kind": "evaluation", "measurements": [measured(id=name, checkpoint="renamed")]}))
            assert [m["checkpoint"] for m in read_measurements([tmp_path])] == ["renamed"]
    assert [m["checkpoint"] for m in read_measurements([tmp_path])] == ["renamed", "second"]
    (tmp_path / "results.json").unlink()
    assert sorted(m["checkpoint"] for m in read_measurements([tmp_path])) == ["first", "second"]
    (tmp_path / "measurements" / "first" / "measurement.json").write_text("{")
    with pytest.raises(UserError, match="first/measurement.json is damaged .*: measure again into a new folder"):
        read_measurements([tmp_path])
    with pytest.raises(UserError, match="absent has no results.json and no finished measurement"):
        read_measurements([tmp_path / "absent"])


def test_scenes_that_a_protocol_does_not_see_are_not_in_its_fingerprint():
    prints = {kind: {words: LABELLED.get("scenes")(**options).fingerprint_for(kind) for words, options in {
        "plain": {}, "val": {"val": 3}, "videos": {"videos": 3}, "frames": {"frames": 5}, "test": {"test": 9},
        "size": {"size": 64}}.items()} for kind in ("class", "video")}
    assert {words for words, text in prints["class"].items() if text == prints["class"]["plain"]} == {
        "plain", "val", "videos", "frames"}
    assert {words for words, text in prints["video"].items() if text == prints["video"]["plain"]} == {
        "plain", "val", "test"}  # a video is of a scene by its number, however many scenes there are
