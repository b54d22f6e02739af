"""Pictures of tasks: colour bars, points, grids without holes, and the panels of reports."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from transfer.prediction.panels import _columns, panel
from transfer.report_panels import _block
from transfer.tasks import build_task
from transfer.tasks._pictures import Scale
from transfer.tasks.localization import gaussian_map
from transfer.tiles import PAPER, draw_task, is_unlabelled, no_label, ticks

GREY = np.full((32, 48, 3), 128, np.uint8)


def test_colour_bars_have_a_few_round_numbers():
    assert ticks(Scale(0.000436, 4.83, "m")) == [(0, "0"), (2, "2"), (4, "4 m")]
    assert [text for _, text in ticks(Scale(0, 1))] == ["0", "0.5", "1"]
    assert ticks(Scale(3.1416, 3.1416, "px")) == [(3.1416, "3.14 px")]
    generator = np.random.default_rng(0)
    for _ in range(300):
        low, span = generator.uniform(0, 100), 10 ** generator.uniform(-0.9, 3)
        found = ticks(Scale(low, low + span, "m"))
        assert 2 <= len(found) <= 7 and all(len(text.removesuffix(" m")) <= 6 for _, text in found), (low, span)
        assert all(low - 0.02 * span <= value <= low + 1.02 * span for value, _ in found)
        assert all(float(text.removesuffix(" m")) == pytest.approx(value, abs=1e-4 * span) for value, text in found)


def test_a_point_is_marked_on_the_dimmed_image():
    task = build_task("localization", "fovea")
    picture = np.asarray(draw_task(task, GREY, gaussian_map(12, 24, 32, 48), (96, 64))).astype(int)
    bright = np.argwhere(picture[..., 0] > 200)  # at twice the size: around (24, 48)
    assert np.abs(bright.mean(0) - (48, 24)).max() < 1 and np.abs(bright - (48, 24)).max() < 16
    assert (picture[2, 2] == 57).all()  # 0.45 of 128
    nowhere = np.asarray(draw_task(task, GREY, np.zeros((32, 48), np.float32), (96, 64)))
    assert not ((nowhere[..., 0] > 200) & (nowhere[..., 2] < 100)).any()


@pytest.mark.parametrize("width, height", [(360, 360), (360, 200), (200, 360), (360, 90)])
def test_a_page_has_as_few_holes_as_can_be(width, height):
    assert _columns(1, width, height) == 1 and _columns(3, width, height) == 3 and _columns(5, width, height) == 5
    for tiles in (2, 4, 6, 8, 9, 10, 12):
        assert tiles % _columns(tiles, width, height) == 0
    for tiles in (7, 11, 13):
        assert -tiles % _columns(tiles, width, height) == 1 or tiles == 13


def test_a_page_of_predictions_has_a_colour_bar():
    task = build_task("depth", "depth")
    depth = np.linspace(1, 5, 32 * 48, dtype=np.float32).reshape(32, 48)
    page = np.asarray(panel(GREY, {"depth": depth}, {"depth": task}))
    right = page[34 + 240 + 8, 10 + 370:10 + 370 + 360].astype(int)  # a row of pixels below the second tile
    assert (np.abs(right[0] - (68, 1, 84)) <= 1).all() and (np.abs(right[-1] - (253, 231, 36)) <= 1).all()
    assert len(np.unique(right, axis=0)) > 200


def test_a_label_that_is_missing_is_told():
    for kind in ("semseg", "depth", "normals", "localization", "attributes", "scene", "scene_distribution"):
        task = build_task(kind, kind, ("a", "b"))
        blank = task.unlabelled(4, 6)
        assert is_unlabelled(task, blank) and is_unlabelled(task, None)
        assert not is_unlabelled(task, np.ones_like(blank))


def test_the_panels_of_a_report(monkeypatch):
    """A column for each image; what has no label says so, depth has a bar below each, classes one legend."""
    classes = {"semseg": ("wall", "floor"), "depth": (), "scene": ("den", "hall")}
    tasks = {name: build_task(name, name, of) for name, of in classes.items()}
    labels = np.zeros((32, 48), np.uint8)
    metres = np.linspace(1, 3, 32 * 48, dtype=np.float32).reshape(32, 48)
    shown = [{"image": GREY, "pairs": {"semseg": (labels, labels + 1), "depth": (truth, metres * 2),
                                       "scene": (None, np.array(1))}} for truth in (metres, None, metres * 4)]
    pixels = np.asarray(_block(tasks, list(tasks), shown))
    empty = "".join("x" if row else " " for row in (pixels == PAPER).all((1, 2)))
    assert max(map(len, empty.split())) < 30  # no large gaps between rows
    said = []
    monkeypatch.setattr("transfer.tiles.draw_bar", lambda draw, scale, *place: said.append((scale.low, scale.high)))
    monkeypatch.setattr("transfer.tiles.draw_legend", lambda draw, lines, *place: said.extend(
        text for line in lines for _, text, _ in line))
    page = _block(tasks, list(tasks), shown)
    assert page.width <= 1160 and said == ["wall", "floor", (1, 3), (2, 6), (4, 12)]
    pixels = np.asarray(page)
    width = (1160 - 104) // 3 - 8
    size = (min(260, width), round(min(260, width) * 32 / 48))
    blank = np.asarray(no_label(size))
    left = 104 + size[0] + 8
    places = [top for top in range(page.height - size[1])
              if (pixels[top:top + size[1], left:left + size[0]] == blank).all()]
    assert len(places) == 1
    assert isinstance(page, Image.Image)
