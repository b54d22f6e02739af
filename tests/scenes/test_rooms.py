"""Rooms are plausible, and their classes neither rare nor given away by colour."""

from __future__ import annotations

import numpy as np
import pytest

from scenes import ATTRIBUTES, SCENE_TYPES, SEMSEG_CLASSES, generate, render
from scenes.assembly import OBJECTS
from scenes.layout import Floor, corners
from scenes.materials import TEXTURES, Palette, value_noise
from scenes.recipes import RECIPES
from scenes.scene import ROOM_SIDES


@pytest.fixture(scope="module")
def many():
    result = []
    for seed in range(1000, 1120):
        scene = generate(seed)
        result.append((scene, render(scene, 48, 48)))
    return result


def test_every_class_has_a_builder_and_every_type_a_recipe():
    assert set(OBJECTS.names()) == set(SEMSEG_CLASSES) - {"wall", "floor", "ceiling"}
    assert tuple(RECIPES) == SCENE_TYPES
    for recipe in RECIPES.values():
        for chances in recipe.values():
            assert sum(chances) == pytest.approx(1)


def test_solids_are_inside_the_room_and_cameras_outside_things(many):
    for scene, _ in many:
        solids = scene.solids
        assert (solids.centre > -0.01).all() and (solids.centre < np.array(scene.size) + 0.01).all()
        for thing in scene.things:
            offset = np.array(scene.camera.position) - thing.centre
            inside = np.abs(offset[:2] @ thing.axes.T) < thing.half[:2]
            assert not (inside.all() and abs(offset[2]) < thing.half[2]), (scene.seed, thing.label)


def test_things_on_the_floor_do_not_overlap(many):
    for scene, _ in many[:40]:
        standing = [thing for thing in scene.things if thing.centre[2] - thing.half[2] < 0.01
                    and thing.label not in ("window", "picture")]
        for index, one in enumerate(standing):
            for other in standing[index + 1:]:
                assert _apart(one, other), (scene.seed, one.label, other.label)


def _apart(one, other):
    """Whether a grid over one footprint misses the other."""
    steps = np.linspace(-0.999, 0.999, 15)
    grid = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    points = one.centre[:2] + (grid * one.half[:2]) @ one.axes
    within = np.abs((points - other.centre[:2]) @ other.axes.T) < other.half[:2] - 1e-6
    return not within.all(axis=1).any()


def test_floor_refuses_overlaps_and_walls():
    floor = Floor(4.0, 4.0, 2.5, np.random.default_rng(0))
    piece = type("Piece", (), {"half_x": 0.5, "half_y": 0.3, "height": 1.0})()
    assert floor.place(piece, 2.0, 2.0, 0.0)
    assert floor.place(piece, 2.2, 2.4, 0.3) is None
    assert floor.place(piece, 0.4, 2.0, 0.0) is None
    assert floor.place(piece, 2.0, 2.9, 0.0)
    assert corners(0, 0, np.pi / 2, 1, 2)[0] == pytest.approx((2, -1))


def test_views_are_worth_looking_at(many):
    things = [len(np.unique(view["instance"])) - 1 for _, view in many]
    assert np.mean(things) > 5 and np.mean(np.array(things) >= 2) > 0.95
    brightness = np.array([view["image"].mean() for _, view in many])
    assert brightness.min() > 50 and brightness.max() < 200
    share = np.mean([(view["instance"] > 0).mean() for _, view in many])
    assert 0.15 < share < 0.6


def test_every_class_occurs_often_enough_and_none_rules(many):
    pixels = np.zeros(len(SEMSEG_CLASSES))
    pictures = np.zeros(len(SEMSEG_CLASSES))
    for _, view in many:
        count = np.bincount(view["semseg"].ravel(), minlength=len(SEMSEG_CLASSES))
        pixels += count
        pictures += count > 0
    share = pixels / pixels.sum()
    assert share.max() < 0.55 and share.min() > 0.002, dict(zip(SEMSEG_CLASSES, share.round(4), strict=True))
    assert pictures.min() > 0.1 * len(many), dict(zip(SEMSEG_CLASSES, pictures, strict=True))


def test_scene_types_and_attributes_vary(many):
    kinds = np.bincount([int(view["scene"]) for _, view in many], minlength=len(SCENE_TYPES))
    assert kinds.min() > 0.07 * len(many)
    rate = np.mean([view["attributes"] for _, view in many], axis=0)
    assert (rate > 0.08).all() and (rate < 0.92).all(), dict(zip(ATTRIBUTES, rate.round(2), strict=True))


def test_colour_does_not_give_the_class_away(many):
    rng = np.random.default_rng(0)
    half = len(many) // 2
    samples = []
    for part in (many[:half], many[half:]):
        image = np.concatenate([view["image"].reshape(-1, 3) for _, view in part]).astype(float)
        semseg = np.concatenate([view["semseg"].ravel() for _, view in part])
        rows = [rng.choice(np.flatnonzero(semseg == label), 150)
                for label in range(len(SEMSEG_CLASSES))]
        samples.append((image[np.concatenate(rows)], np.repeat(np.arange(len(SEMSEG_CLASSES)), 150)))
    (known, classes), (asked, truth) = samples
    centres = np.stack([known[classes == label].mean(axis=0) for label in range(len(SEMSEG_CLASSES))])
    nearest_mean = np.square(asked[:, None] - centres).sum(axis=2).argmin(axis=1)
    nearest = np.square(asked[:, None] - known[None]).sum(axis=2).argmin(axis=1)
    chance = 1 / len(SEMSEG_CLASSES)
    assert (nearest_mean == truth).mean() < 2.2 * chance
    assert (classes[nearest] == truth).mean() < 2.2 * chance


def test_textures_stay_between_their_two_colours():
    points = np.random.default_rng(1).uniform(0, 40, (3, 2000)).astype(np.float32)
    for name in TEXTURES.names():
        blend = TEXTURES.get(name)(points)
        assert blend.dtype == np.float32 and blend.shape == (2000,), name
        assert blend.min() >= 0 and blend.max() <= 1 + 1e-6, name
        if name != "plain":
            assert blend.std() > 0.1, name
    diagonal = np.linspace(0, 3, 3000, dtype=np.float32)[None].repeat(3, 0)
    assert np.abs(np.diff(value_noise(diagonal))).max() < 0.02


def test_all_materials_come_from_one_distribution():
    palette = Palette(np.random.default_rng(2))
    used = {palette.material().texture for _ in range(300)}
    assert used == set(TEXTURES.names())


def test_surfaces_number_sides_first(many):
    scene = many[0][0]
    assert len(scene.sides) == ROOM_SIDES
    assert (np.diff(scene.solids.material) >= 0).all()
