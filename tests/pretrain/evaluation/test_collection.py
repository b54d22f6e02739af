"""Which measurements are one figure of a table, and which are not."""

from __future__ import annotations

import json

import pytest

from pretrain.evaluation.collection import build_table, read_measurements
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
