"""The protocol ``view_iou``: the same figures as the command, for options or a pretraining's file."""

from __future__ import annotations

import json

import numpy as np
import pytest

from harness.errors import UserError
from pretrain.crops import MultiCrop
from pretrain.evaluation.base import PROTOCOLS
from pretrain.evaluation.protocols import view_iou
from pretrain.view_iou import view_ious

VIEW_IOU = PROTOCOLS.get("view_iou")


def measure(folder, seed=0, **options):
    return VIEW_IOU(width=64, height=48, draws=200, **options).measure(None, None, folder, seed)


@pytest.fixture
def undrawn(monkeypatch):
    """Without the picture, which takes most of the time."""
    monkeypatch.setattr(view_iou, "draw", lambda drawn, path: path)


def test_picture(tmp_path):
    (picture, caption), = measure(tmp_path, max_iou=0.3).figures
    assert picture.is_file() and "64 × 48" in caption


def test_figures(tmp_path, undrawn):
    for options in ({}, {"max_iou": 0.3}, {"global_scale": (0.5, 1.0), "ratio": (1.0, 1.0)}):
        found = measure(tmp_path, 3, **options)
        values = 100 * view_ious(MultiCrop(local_crops=0, **options), 48, 64, 200, seed=3)
        assert found.metrics == pytest.approx({
            "mean": values.mean(), "lower_quartile": np.quantile(values, 0.25), "median": np.median(values),
            "upper_quartile": np.quantile(values, 0.75)})
    assert set(found.metrics) == VIEW_IOU.descriptive


def test_the_crops_of_a_file(tmp_path, undrawn):
    file = tmp_path / "pretraining.yaml"
    file.write_text("crops: {name: multi_crop, max_iou: 0.2, local_crops: 3}\nepochs: 3\n")
    found = measure(tmp_path, config=str(file))
    assert found.metrics == measure(tmp_path, max_iou=0.2).metrics and found.metrics["upper_quartile"] <= 20
    rows = found.tables["settings"][1]
    assert [row[0] for row in rows] == ["unlimited", "max_iou 0.2"]
    before = VIEW_IOU(config=str(file)).inputs()
    file.write_text("crops: {name: multi_crop, max_iou: 0.4}\n")
    assert VIEW_IOU(config=str(file)).inputs() != before, "a measurement of another content would be taken for this"


@pytest.mark.parametrize("options, message", [
    ({"draws": 0}, "view_iou.draws is 0: set it to 1 or more"),
    ({"max_iou": 2.0}, "max_iou is 2.0: set it between 0 and 1"),
    ({"config": "missing.yaml"}, "cannot read --config missing.yaml"),
    ({"config": "some.yaml", "ratio": (1.0, 1.0)}, "config and ratio are given"),
])
def test_mistakes(options, message):
    with pytest.raises(UserError, match=message):
        VIEW_IOU(**options)


def test_without_a_checkpoint(programs, undrawn):
    """Neither a backbone nor data is asked for, the table has a row of its own, and settings have their own columns."""
    for options in ([], ["--view_iou.max_iou=0.3"]):
        done = programs.call("pretrain.evaluate", "--tasks=[view_iou]", "--view_iou.draws=50", "--output=out", *options)
        assert done.code == 0, done.err
        assert "view IoU [%]" in done.out and "\n–  " in done.out
    assert len(json.loads((programs.folder / "out" / "results.json").read_text())["measurements"]) == 2
    compared = programs.call("pretrain.evaluate", "compare", "out")
    assert "view IoU [%] (max_iou 0.3)" in compared.out and "±" not in compared.out and "↑" not in compared.out
