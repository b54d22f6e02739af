"""Geometry against per-pixel loops and known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.errors import UserError
from harness.seeding import numpy_generator
from transfer.tasks import build_task
from transfer.transforms import Augmentation, Geometry, as_size, resize_image

H, W = 13, 18
CASES = {
    "flip": {"flip": True},
    "zoom": {"zoom": 1.5, "top": 3.0, "left": 4.0},
    "zoom out": {"zoom": 0.73, "top": -2.0, "left": -3.0},
    "crop": {"top": 2, "left": 5, "out_height": 7, "out_width": 6},
    "pad": {"top": -3, "left": -2, "out_height": 20, "out_width": 25},
    "rotate": {"angle": 20.0},
    "rotate back and flip": {"angle": -33.0, "flip": True},
    "everything": {"flip": True, "angle": 12.0, "zoom": 1.2, "top": 1.0, "left": 2.0},
    "stretch": {"stretch": True, "out_height": 30, "out_width": 9, "flip": True},
    "stretch and rotate": {"stretch": True, "out_height": 30, "out_width": 9, "angle": 10.0, "zoom": 0.8},
}


def geometry(**options) -> Geometry:
    return Geometry(**{"height": H, "width": W, "out_height": H, "out_width": W, **options})


def source_point(g: Geometry, row: int, column: int) -> tuple[float, float]:
    """Where the centre of an output pixel comes from, step by step backwards."""
    y, x = row + 0.5 + g.top, column + 0.5 + g.left
    scale_y = g.zoom * (g.out_height / g.height if g.stretch else 1)
    scale_x = g.zoom * (g.out_width / g.width if g.stretch else 1)
    up, right = -(y / scale_y - g.height / 2), x / scale_x - g.width / 2  # axes as on paper
    t = math.radians(-g.angle)  # back: clockwise
    right, up = math.cos(t) * right - math.sin(t) * up, math.sin(t) * right + math.cos(t) * up
    if g.flip:
        right = -right
    return g.height / 2 - up, g.width / 2 + right


def slow_label(g: Geometry, label: np.ndarray, fill) -> np.ndarray:
    result = np.full((g.out_height, g.out_width, *label.shape[2:]), fill, label.dtype)
    for row in range(g.out_height):
        for column in range(g.out_width):
            y, x = (math.floor(v) for v in source_point(g, row, column))
            if 0 <= y < g.height and 0 <= x < g.width:
                result[row, column] = label[y, x]
    return result


def slow_image(g: Geometry, image: np.ndarray, fill) -> np.ndarray:
    result = np.zeros((g.out_height, g.out_width, 3))
    for row in range(g.out_height):
        for column in range(g.out_width):
            y, x = source_point(g, row, column)
            if not (0 <= y < g.height and 0 <= x < g.width):
                result[row, column] = fill
                continue
            y, x = min(max(y - 0.5, 0), g.height - 1), min(max(x - 0.5, 0), g.width - 1)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, g.height - 1), min(x0 + 1, g.width - 1)
            top = image[y0, x0] * (1 - x + x0) + image[y0, x1] * (x - x0)
            bottom = image[y1, x0] * (1 - x + x0) + image[y1, x1] * (x - x0)
            result[row, column] = top * (1 - y + y0) + bottom * (y - y0)
    return result


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("channels", [(), (3,)])
def test_labels_equal_the_slow_reference(case, channels):
    g = geometry(**CASES[case])
    label = np.random.default_rng(0).integers(1, 9, (H, W, *channels)).astype(np.float32)
    np.testing.assert_array_equal(g.label(label, 0), slow_label(g, label, 0))


@pytest.mark.parametrize("case", [case for case in CASES if case not in ("stretch",)])
def test_images_equal_the_slow_reference(case):
    g = geometry(**CASES[case])
    image = np.random.default_rng(0).integers(0, 256, (H, W, 3)).astype(np.uint8)
    got = g.image(image, fill=(9, 99, 199))
    assert got.shape == (g.out_height, g.out_width, 3) and got.dtype == np.uint8 and got.flags.c_contiguous
    np.testing.assert_allclose(got, slow_image(g, image, (9, 99, 199)), atol=1.01)  # 8-bit rounding


def test_shrinking_averages():
    checker = np.indices((64, 64)).sum(0) % 2 * 255
    image = np.repeat(checker[..., None], 3, 2).astype(np.uint8)
    small = Geometry(64, 64, 16, 16, stretch=True).image(image)
    assert np.abs(small.astype(int) - 127).max() < 12
    assert np.abs(resize_image(image, 16).astype(int) - small).max() == 0


def test_identity_copies():
    g = geometry()
    image, label = np.zeros((H, W, 3), np.uint8), np.zeros((H, W), np.float32)
    for array, result in ((image, g.image(image)), (label, g.label(label, 0))):
        result += 1
        assert not array.any()


@pytest.mark.parametrize("angle", [0.0, 15.0])
def test_outside_is_filled(angle):
    g = geometry(top=-4.0, angle=angle)
    image = np.full((H, W, 3), (10, 20, 30), np.uint8)
    assert (g.image(image) == (10, 20, 30)).all()  # the mean colour
    image[:, ::8] = 110  # every other one of the columns that the mean is taken of
    np.testing.assert_allclose(g.image(image)[0, 0], image[::4, ::4].reshape(-1, 3).mean(0), atol=0.5)
    semseg = build_task("semseg", "semseg", ("a", "b"))
    label = semseg.apply(np.zeros((H, W), np.uint8), g)
    assert set(np.unique(label)) == {0, 255} and (label[:3] == 255).all() == (angle == 0)
    depth = build_task("depth", "depth").apply(np.ones((H, W), np.float32), g)
    np.testing.assert_array_equal(depth == 0, label == 255)


def test_labels_of_another_size_are_refused():
    with pytest.raises(UserError, match="image's size"):
        geometry().label(np.zeros((H, W + 1)), 0)


# ---- rules for values ------------------------------------------------------------------------------


def test_depth_is_divided_by_the_zoom():
    depth = np.random.default_rng(0).random((H, W)).astype(np.float32) + 1
    source = depth.copy()
    g = geometry(**CASES["everything"])
    moved = build_task("depth", "depth").apply(depth, g)
    np.testing.assert_allclose(moved, slow_label(g, depth, 0) / 1.2, rtol=1e-6)
    np.testing.assert_array_equal(depth, source)  # the data set's array is not touched


@pytest.mark.parametrize("case", CASES)
def test_normals_follow_slow_rule(case):
    g = geometry(**CASES[case])
    field = np.random.default_rng(0).normal(size=(H, W, 3)).astype(np.float32)
    source = field.copy()
    got = build_task("normals", "normals").apply(field, g)
    expected = slow_label(g, field, 0)
    for row in range(g.out_height):
        for column in range(g.out_width):
            x, y, z = expected[row, column]
            x = -x if g.flip else x
            t = math.radians(g.angle)
            expected[row, column] = (math.cos(t) * x - math.sin(t) * y, math.sin(t) * x + math.cos(t) * y, z)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    np.testing.assert_array_equal(field, source)


def sphere(size: int) -> np.ndarray:
    y, x = (0.5 - (np.mgrid[:size, :size] + 0.5) / size) * 2.2
    x = -x
    z2 = 1 - x**2 - y**2
    return np.where((z2 > 0)[..., None], np.stack([x, y, np.sqrt(np.maximum(z2, 0))], -1), 0).astype(
        np.float32
    )


@pytest.mark.parametrize("options", [{"flip": True}, {"angle": 20.0}, {"angle": -35.0, "flip": True}])
def test_a_ball_looks_the_same_from_its_front(options):
    """Mirrored or turned about the line of sight, a ball's normals stay what they are, place by place."""
    ball = sphere(64)
    g = Geometry(64, 64, 64, 64, **options)
    got = build_task("normals", "normals").apply(ball, g)
    inside = (ball != 0).any(-1) & (got != 0).any(-1)
    assert inside.sum() > 2000
    assert (
        np.abs(got - ball)[inside & (ball[..., 2] > 0.3)].max() < 0.12
    )  # half a pixel at the slanted places


def test_positive_angle_is_counter_clockwise():
    label = np.zeros((21, 21), np.uint8)
    label[10, 18] = 1  # right of the centre
    turned = Geometry(21, 21, 21, 21, angle=90).label(label, 255)
    assert np.argwhere(turned == 1).tolist() == [[2, 10]]  # above it


def test_image_and_label_move_together():
    """A label that is a channel of the picture still is after any geometry (smooth content)."""
    y, x = np.mgrid[:48, :64]
    image = np.stack([x * 3, y * 4, x + y], -1).astype(np.uint8)
    augmentation = Augmentation(zoom=(1.0, 1.4), scale=(0.75, 1.25), rotation=20, size=(40, 56))
    for i in range(30):
        g = augmentation.sample(48, 64, numpy_generator("together", i))
        moved, label = g.image(image).astype(int), g.label(image[..., 0].astype(np.int32), -1)
        known = label >= 0
        assert known.mean() > 0.3
        assert np.abs(moved[..., 0] - label)[known].max() <= 4  # less than the step between pixels, plus one


# ---- sampling --------------------------------------------------------------------------------------


def test_sampling_is_a_function_of_the_generator():
    augmentation = Augmentation(rotation=20, scale=(0.75, 1.25), size=64)
    draws = [augmentation.sample(128, 100, numpy_generator(i)) for i in range(50)]
    assert draws == [augmentation.sample(128, 100, numpy_generator(i)) for i in range(50)]
    assert len(set(draws)) == 50
    assert 10 < sum(g.flip for g in draws) < 40
    assert max(abs(g.angle) for g in draws) <= 20 and min(g.zoom for g in draws) < 0.9


def test_crops_stay_inside_when_they_can():
    augmentation = Augmentation(zoom=(1.0, 1.2, 1.5))
    for i in range(200):
        g = augmentation.sample(97, 61, numpy_generator(i))
        assert (g.label(np.ones((97, 61), np.uint8), 0) == 1).all()


def test_center_crop_keeps_the_middle():
    augmentation = Augmentation(flip=0, zoom=(1.5,), position="center")
    g = augmentation.sample(64, 64, numpy_generator(0))
    a, b, c, d, e, f = g.inverse
    assert (a * 32 + b * 32 + c, d * 32 + e * 32 + f) == pytest.approx((32, 32))


def test_unscaled_crops_are_exact():
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    for position in ("random", "center"):
        augmentation = Augmentation(flip=0, zoom=(1.0,), size=(23, 31), position=position)
        g = augmentation.sample(40, 50, numpy_generator(position))
        top, left = int(g.top), int(g.left)
        np.testing.assert_array_equal(g.image(image), image[top : top + 23, left : left + 31])


def test_stretch_shows_everything():
    g = Augmentation(flip=0, zoom=(1.0,), size=(32, 48), fit="stretch").sample(60, 50, numpy_generator(0))
    image = np.random.default_rng(0).integers(0, 256, (60, 50, 3)).astype(np.uint8)
    np.testing.assert_array_equal(g.image(image), resize_image(image, (32, 48)))


def test_jitter_changes_colors_only_when_asked():
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    assert Augmentation().colors(image, numpy_generator(0)) is image
    jittered = Augmentation(jitter=0.4).colors(image, numpy_generator(0))
    assert jittered.shape == image.shape and jittered.dtype == np.uint8 and (jittered != image).any()
    np.testing.assert_array_equal(jittered, Augmentation(jitter=0.4).colors(image, numpy_generator(0)))


@pytest.mark.parametrize(
    "options",
    [
        {"zoom": ()},
        {"zoom": (0.0,)},
        {"scale": (1.2, 0.8)},
        {"flip": 1.5},
        {"jitter": 1.0},
        {"rotation": -1.0},
        {"size": 0},
        {"size": (1, 2, 3)},
        {"position": "left"},
        {"fit": "squash"},
    ],
)
def test_mistakes_are_named(options):
    with pytest.raises(UserError):
        Augmentation(**options)


def test_sizes():
    assert as_size(None, "x") is None and as_size(3, "x") == (3, 3) and as_size([4, 5], "x") == (4, 5)
