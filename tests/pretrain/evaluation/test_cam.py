"""Class activation maps beside slow ones, and what they cover."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from harness.errors import UserError
from pretrain.evaluation.activation_maps import activation_maps, coverage, interpolate
from pretrain.evaluation.base import PROTOCOLS
from pretrain.evaluation.linear_svm import train_svms

CAM = PROTOCOLS.get("cam")
NAMES = ("ground", "red", "green", "blue", "nowhere")
COLOURS = np.array([[90, 90, 90], [230, 60, 60], [60, 230, 60], [60, 60, 230], [0, 0, 0]])


@pytest.fixture
def undrawn(monkeypatch):
    """Without the picture, which takes most of the time."""
    monkeypatch.setattr(CAM, "_draw", lambda self, path, *_: (path, ""))


def paint(seed, noise=25, size=(24, 32)):
    """Squares of some of three colours on grey ground, with a border that counts for nothing."""
    generator = np.random.default_rng(seed)
    mask = np.zeros(size, np.uint8)
    for number in (1, 2, 3):
        if generator.random() < 0.6:
            top, left = 4 * generator.integers(5), 4 * generator.integers(7)
            mask[top : top + 8, left : left + 8] = number
    image = np.clip(COLOURS[mask] + noise * generator.normal(size=(*size, 3)), 0, 255).astype(np.uint8)
    mask[-2:] = 255
    return image, mask


@pytest.fixture(scope="module")
def paintings(painted_data):
    return painted_data(NAMES, [paint(seed) for seed in range(20)], [paint(100 + seed) for seed in range(6)])


def slow_coverage(scores, inside, top):
    """Take pixel after pixel from the highest on."""
    order = sorted(range(scores.size), key=lambda pixel: -scores.flat[pixel])[: max(1, round(top * scores.size))]
    return sum(bool(inside.flat[pixel]) for pixel in order) / inside.sum()


@pytest.mark.parametrize("top", [0.2, 0.03, 0.77])
def test_coverage(top):
    generator = np.random.default_rng(0)
    maps, objects = generator.normal(size=(5, 9, 13)), generator.random((5, 9, 13)) < 0.3
    found = coverage(torch.from_numpy(maps), torch.from_numpy(objects), top)
    assert found.tolist() == pytest.approx([slow_coverage(*pair, top) for pair in zip(maps, objects, strict=True)])


def test_coverage_of_ties():
    objects = torch.zeros(3, 4, 5, dtype=torch.bool)
    objects[:, :2] = True
    maps = torch.zeros(3, 4, 5)
    maps[1, 0, :2], maps[2, 3] = 1, 1
    # 4 of 20 pixels: nothing known; two in the object and two of the 18 others, 8 of which are in it; 4 of 5 outside
    expected = [4 / 20, (2 + 2 * 8 / 18) / 10, 0]
    assert coverage(maps, objects, 0.2).tolist() == pytest.approx(expected)
    noise = torch.randn(2000, 10, 10, generator=torch.Generator().manual_seed(0))
    inside = torch.zeros(10, 10, dtype=torch.bool)
    inside[3:7, 2:8] = True
    assert coverage(noise, inside.expand(2000, -1, -1), 0.2).mean() == pytest.approx(0.2, abs=0.006)


def test_maps_sum_to_the_score():
    generator = torch.Generator().manual_seed(0)
    features, weight = torch.randn(7, 4, 5, generator=generator), torch.randn(3, 7, generator=generator)
    maps = activation_maps(features, weight)
    torch.testing.assert_close(maps.mean((1, 2)), weight @ features.mean((1, 2)))
    torch.testing.assert_close(maps[1, 2, 3], weight[1] @ features[:, 2, 3])


@pytest.mark.parametrize("pairs", ["true", "predicted"])
def test_against_loops(paintings, colour_features, request, tmp_path, pairs):
    if pairs == "true":
        request.getfixturevalue("undrawn")
    found = CAM(pairs=pairs, top=0.15, cost=2.0, batch_size=3).measure(colour_features, paintings, tmp_path, 0)

    def seen(image):
        return F.avg_pool2d(colour_features.normalise(image[None]), 4)[0].double()

    means = np.stack([seen(image).mean((1, 2)).numpy() for image, _ in paintings.parts["train"].pairs])
    shown = np.array([[(mask == number).any() for number in (1, 2, 3)] for _, mask in paintings.parts["train"].pairs])
    weight, bias = train_svms(means.astype(np.float32), shown, 2.0 * np.where(shown, 2, 1))
    shares = {1: [], 2: [], 3: []}
    for image, mask in paintings.parts["test"].pairs:
        maps = seen(image)
        mean = maps.mean((1, 2))
        for place, number in enumerate((1, 2, 3)):
            score = weight[:, place] @ (mean / mean.norm()) + bias[place]
            if (mask == number).any() and (pairs == "true" or score > 0):
                large = F.interpolate(torch.einsum("c,chw->hw", weight[:, place], maps)[None, None], size=mask.shape,
                                      mode="bilinear")[0, 0].numpy()
                shares[number].append(100 * slow_coverage(large, mask == number, 0.15))
    every = sum(shares.values(), [])
    assert found.metrics["covered"] == pytest.approx(np.mean(every), rel=1e-3)
    assert found.metrics["pairs"] == len(every) > 5
    assert found.metrics["covered"] > 2 * found.metrics["random"]
    rows = found.tables["coverage of each class"][1]
    assert [(row[0], row[1]) for row in rows] == [(NAMES[number], len(some)) for number, some in shares.items()]
    assert "ground, nowhere" in found.remarks[-1]
    assert pairs == "true" or found.figures[0][0].stat().st_size > 5000


def test_baselines(paintings, colour_features, undrawn, tmp_path):
    """What a random map, the middle of the image and the best of all maps cover."""
    found = CAM().measure(colour_features, paintings, tmp_path, 0)
    middle, possible = [], []
    for _, mask in paintings.parts["test"].pairs:
        height, width = mask.shape
        down, right = np.mgrid[:height, :width]
        away = ((down + 0.5) / height - 0.5) ** 2 + ((right + 0.5) / width - 0.5) ** 2
        for number in (1, 2, 3):
            if (mask == number).any():
                inside = torch.from_numpy(mask == number)[None]
                middle.append(100 * coverage(torch.from_numpy(-away)[None], inside, 0.2).item())
                possible.append(100 * coverage(inside.double(), inside, 0.2).item())
    assert found.metrics["middle"] == pytest.approx(np.mean(middle))
    assert found.metrics["possible"] == pytest.approx(np.mean(possible))
    assert 5 < found.metrics["random"] < 40
    assert CAM().measure(colour_features, paintings, tmp_path, 0).metrics == found.metrics
    assert CAM().measure(colour_features, paintings, tmp_path, 1).metrics["random"] != found.metrics["random"]


def test_interpolation_is_that_of_torch():
    maps = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(maps[:, None], size=(9, 7), mode="bilinear")[:, 0]
    torch.testing.assert_close(interpolate(maps, (9, 7)), expected)


@pytest.mark.parametrize("options, message", [
    ({"top": 0.0}, "cam.top is 0.0: set it between 0 and 1"), ({"most": 1.5}, "cam.most is 1.5"),
    ({"cost": -1.0}, "cam.cost is -1.0: set it above 0"), ({"pairs": "all"}, "choose true or predicted"),
    ({"batch_size": 0}, "cam.batch_size is 0: set it to 1 or more"),
])
def test_options(options, message):
    with pytest.raises(UserError, match=message):
        CAM(**options)


def test_nothing_to_learn(painted_data, colour_features, tmp_path):
    plain = np.full((8, 8, 3), 90, np.uint8), np.zeros((8, 8), np.uint8)
    with pytest.raises(UserError, match="no class is in some of the masks of 'train' and at most 90% of them"):
        CAM().measure(colour_features, painted_data(NAMES, [plain] * 3, [plain]), tmp_path, 0)
    some = [paint(seed) for seed in range(9)]
    with pytest.raises(UserError, match="no image of 'test' shows a class that is learnt"):
        CAM().measure(colour_features, painted_data(NAMES, some, [plain]), tmp_path, 0)


def test_on_scenes_by_the_command(programs, undrawn):
    """With a network whose places are tokens."""
    done = programs.call(
        "pretrain.evaluate", "--checkpoint=[random:test_vit]", "--tasks=[cam]", "--data.train=12", "--data.test=4",
        "--data.size=32", "--output=out", "--cam.resize=160", "--threads=1")
    assert done.code == 0, done.err
    assert "CAM covers [%] ↑" in done.out
    assert json.loads((programs.folder / "out" / "results.json").read_text())["measurements"][0]["metrics"]["pairs"] > 4
