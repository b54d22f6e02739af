"""The histogram of the overlap of two views."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pretrain.crops import MultiCrop
from pretrain.view_iou import view_ious


def test_overlap_of_pairs():
    free, limited = (view_ious(MultiCrop(local_crops=0, max_iou=limit), 480, 640, 200) for limit in (None, 0.3))
    assert free.shape == (200,) and 0 <= free.min() and free.max() <= 1 and free.max() > 0.5 > limited.max()
    assert limited.max() <= 0.3 and limited.mean() < free.mean()
    whole = MultiCrop(local_crops=0, global_scale=(1, 1), ratio=(1, 1))
    assert np.array_equal(view_ious(whole, 50, 50, 3), [1, 1, 1])
    assert view_ious(MultiCrop(local_crops=4), 480, 640, 1)[0] == free[0]


@pytest.mark.parametrize("options, rows", [
    ([], ["unlimited"]),
    (["--crops.max_iou=0.4"], ["unlimited", "max_iou 0.4"]),
])
def test_command(programs, options, rows):
    done = programs.call("pretrain.view_iou", "--draws=100", "--output=a/b.png", *options)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert [line.split("  ")[0] for line in lines[1:-1]] == rows and lines[-1] == "wrote a/b.png"
    mean, low, middle, high = (float(word) for word in lines[-2].split()[-4:])
    assert 0 < low < middle < high < 1 and low < mean < high
    assert Image.open(programs.folder / "a" / "b.png").width > 300


@pytest.mark.parametrize("option, message", [
    ("--draws=0", "draws is 0: set it to 1 or more"),
    ("--crops.max_iou=2", "max_iou is 2.0: set it between 0 and 1"),
    ("--crops.size=2", "unknown option --crops.size"),
])
def test_mistakes(programs, option, message):
    assert message in programs.call("pretrain.view_iou", option).error
