"""Labels against a slow reference, and against what geometry says."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from harness.errors import UserError
from scenes import (
    ATTRIBUTES,
    PART_CLASSES,
    SCENE_TYPES,
    SEMSEG_CLASSES,
    generate,
    render,
)
from scenes.labels import heat_map
from scenes.raycast import cast
from scenes.scene import FLOOR, ROOM_SIDES

SEEDS = (2, 5, 13, 23, 101)


@pytest.fixture(scope="module")
def views():
    return {seed: (generate(seed), render(generate(seed), 64, 64)) for seed in SEEDS}


def test_keys_types_and_ranges(views):
    kinds = {
        "image": (np.uint8, (64, 64, 3)), "semseg": (np.uint8, (64, 64)), "depth": (np.float32, (64, 64)),
        "normals": (np.float32, (64, 64, 3)), "edge": (np.uint8, (64, 64)), "saliency": (np.uint8, (64, 64)),
        "parts": (np.uint8, (64, 64)), "instance": (np.int32, (64, 64)),
        "instance_center": (np.float32, (64, 64, 2)), "keypoints": (np.float32, (64, 64)),
        "scene": (np.int64, ()), "attributes": (np.uint8, (len(ATTRIBUTES),)),
    }
    for _, view in views.values():
        assert {name: (value.dtype, value.shape) for name, value in view.items()} == {
            name: (np.dtype(kind), shape) for name, (kind, shape) in kinds.items()}
        assert view["semseg"].max() < len(SEMSEG_CLASSES) and view["parts"].max() < len(PART_CLASSES)
        assert 0 <= view["scene"] < len(SCENE_TYPES)
        assert all(np.isin(view[name], (0, 1)).all() for name in ("edge", "saliency", "attributes"))
        assert 0 <= view["keypoints"].min() and view["keypoints"].max() <= 1
        assert view["depth"].min() > 0 and np.isfinite(view["depth"]).all()
        np.testing.assert_allclose(np.linalg.norm(view["normals"], axis=2), 1, atol=1e-5)


def test_the_same_seed_gives_the_same_bytes_here_and_in_another_process():
    code = ("import hashlib; from scenes import generate, render; v = render(generate(7), 48, 48);"
            "print(hashlib.sha256(b''.join(v[k].tobytes() for k in sorted(v))).hexdigest())")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "5",
                   "PYTHONPATH": os.pathsep.join(sys.path)}
    there = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True,
                           check=True).stdout.strip()
    for _ in range(2):
        view = render(generate(7), 48, 48)
        assert hashlib.sha256(b"".join(view[key].tobytes() for key in sorted(view))).hexdigest() == there
    assert not np.array_equal(view["image"], render(generate(8), 48, 48)["image"])


def test_labels_do_not_change_the_image(views):
    scene, view = views[2]
    plain = render(scene, 64, 64, labels=False)
    assert set(plain) == {"image", "scene"}
    assert np.array_equal(plain["image"], view["image"])


@pytest.mark.parametrize("seed", SEEDS)
def test_every_pixel_sees_what_the_reference_sees(views, seed, reference):
    scene, view = views[seed]
    depth, surface, normal = reference.trace(scene, scene.camera, 64, 64)
    hits = cast(scene, scene.camera, 64, 64)
    same = hits.surface == surface
    # Rounding may decide a ray through an outline or between solids that share a plane.
    assert same.mean() > 0.998
    near = np.abs(view["depth"] - depth) < 2e-3 * depth
    assert near.mean() > 0.9985
    angle = (view["normals"] * (normal @ scene.camera.axes.T)).sum(axis=2)
    assert (angle > 0.999).mean() > 0.995
    toward = -reference.rays(scene.camera, 64, 64) @ scene.camera.axes.T
    assert (view["normals"] * toward).sum(axis=2).min() > -1e-3
    solid = hits.surface - ROOM_SIDES
    labels = np.array([SEMSEG_CLASSES.index(thing.label) for thing in scene.things])
    on_solid = solid >= 0
    expected = np.where(hits.surface == FLOOR, 1, np.where(hits.surface == FLOOR + 1, 2, 0))
    expected[on_solid] = labels[scene.solids.thing[solid[on_solid]]]
    assert np.array_equal(view["semseg"], expected)
    assert np.array_equal(view["parts"][on_solid], scene.solids.part[solid[on_solid]])
    assert not view["parts"][~on_solid].any()


def test_culled_and_unculled_casts_agree_with_a_camera_close_to_furniture(reference):
    scene = generate(13)
    tried = 0
    for thing in scene.things:
        position = thing.centre + [0, 0, thing.half[2] + 0.08]
        offsets = [(other, position - other.centre) for other in scene.things]
        if position[2] > scene.size[2] - 0.05 or any(
                (np.abs(offset[:2] @ other.axes.T) < other.half[:2]).all() and abs(offset[2]) < other.half[2]
                for other, offset in offsets):
            continue
        tried += 1
        camera = replace(scene.camera, position=tuple(position), pitch=-0.8)
        _, surface, _ = reference.trace(scene, camera, 32, 32)
        assert (cast(scene, camera, 32, 32).surface == surface).mean() > 0.99, thing.label
    assert tried >= 3


@pytest.mark.parametrize("seed", SEEDS)
def test_normals_are_the_slope_of_depth_on_flat_surfaces(views, seed):
    scene, view = views[seed]
    x, y = scene.camera.screen(64, 64)
    depth = view["depth"].astype(np.float64)
    point = np.stack([x[None, :] * depth, y[:, None] * depth, -depth], axis=2)
    slope = np.cross(point[1:-1, 2:] - point[1:-1, :-2], point[:-2, 1:-1] - point[2:, 1:-1])
    slope /= np.linalg.norm(slope, axis=2, keepdims=True)
    surface = cast(scene, scene.camera, 64, 64).surface
    flat = surface[1:-1, 1:-1] < ROOM_SIDES
    for shift in ((0, 1), (2, 1), (1, 0), (1, 2)):
        flat &= surface[shift[0]:62 + shift[0], shift[1]:62 + shift[1]] == surface[1:-1, 1:-1]
    assert flat.sum() > 300
    cosine = (slope * view["normals"][1:-1, 1:-1]).sum(axis=2)[flat]
    assert cosine.min() > 0.9995


@pytest.mark.parametrize("seed", SEEDS)
def test_depth_projects_back_into_the_room(views, seed, reference):
    scene, view = views[seed]
    point = np.array(scene.camera.position) + reference.rays(scene.camera, 64, 64) * view["depth"][..., None]
    assert (point > -1e-3).all() and (point < np.array(scene.size) + 1e-3).all()
    surface = cast(scene, scene.camera, 64, 64).surface
    assert np.abs(point[surface == FLOOR][:, 2]).max(initial=0) < 1e-4
    pixels, depth = scene.camera.project(point.reshape(-1, 3), 64, 64)
    rows, columns = np.mgrid[:64, :64]
    np.testing.assert_allclose(pixels, np.stack([columns + 0.5, rows + 0.5], 2).reshape(-1, 2), atol=1e-2)
    np.testing.assert_allclose(depth, view["depth"].ravel(), rtol=1e-5)


@pytest.mark.parametrize("seed", SEEDS[:3])
def test_a_mirrored_camera_gives_mirrored_labels(views, seed):
    scene, view = views[seed]
    mirror = render(scene, 64, 64, camera=replace(scene.camera, flip=True))
    for name in ("semseg", "instance", "parts", "saliency", "edge"):
        assert (mirror[name][:, ::-1] == view[name]).mean() > 0.999, name
    same = mirror["semseg"][:, ::-1] == view["semseg"]
    np.testing.assert_allclose(mirror["depth"][:, ::-1][same], view["depth"][same], rtol=1e-3)
    turned = mirror["normals"][:, ::-1] * [-1, 1, 1]
    assert (np.abs(turned - view["normals"]).max(axis=2)[same] < 0.02).mean() > 0.999
    np.testing.assert_allclose((mirror["instance_center"][:, ::-1] * [-1, 1])[same],
                               view["instance_center"][same], atol=1e-3)
    np.testing.assert_allclose(mirror["keypoints"][:, ::-1], view["keypoints"], atol=1e-4)
    assert np.array_equal(mirror["attributes"], view["attributes"])
    difference = np.abs(mirror["image"][:, ::-1].astype(int) - view["image"])
    assert np.mean(difference) < 0.5


def test_twice_the_focal_length_is_the_middle_of_twice_the_resolution(views):
    for scene, _ in views.values():
        zoomed = render(scene, 32, 32, camera=replace(scene.camera, focal=2 * scene.camera.focal))
        large = render(scene, 64, 64)
        middle = slice(16, 48)
        for name in ("semseg", "depth", "normals", "parts", "instance"):
            assert np.array_equal(zoomed[name], large[name][middle, middle]), name
        labelled = zoomed["instance"] > 0
        np.testing.assert_allclose(zoomed["instance_center"][labelled],
                                   large["instance_center"][middle, middle][labelled], atol=1e-3)


def test_a_step_forward_is_that_much_less_depth():
    scene = generate(2)
    forward = -scene.camera.axes[2]
    step = 0.2
    moved = replace(scene.camera, position=tuple(np.array(scene.camera.position) + step * forward))
    # An odd size has a pixel on the axis, which sees the same point from both places.
    before, after = render(scene, 33, 33), render(scene, 33, 33, camera=moved)
    assert before["depth"][16, 16] - after["depth"][16, 16] == pytest.approx(step, abs=1e-4)
    assert before["semseg"][16, 16] == after["semseg"][16, 16]


def test_offsets_point_to_the_projected_centre_and_are_zero_where_nothing_is(views):
    for scene, view in views.values():
        instance, offset = view["instance"], view["instance_center"]
        assert not offset[instance == 0].any()
        assert np.array_equal(instance == 0, np.isin(view["semseg"], (0, 1, 2)))
        for number in np.unique(instance[instance > 0]):
            rows, columns = np.nonzero(instance == number)
            centre = offset[rows, columns] + np.stack([columns + 0.5, rows + 0.5], axis=1)
            pixel, depth = scene.camera.project(scene.things[number - 1].centre[None], 64, 64)
            if depth[0] > 0.1:
                np.testing.assert_allclose(centre, np.repeat(pixel, len(rows), 0), rtol=1e-4, atol=1e-2)


def test_edges_are_outlines_on_the_nearer_side(views):
    for scene, view in views.values():
        surface = cast(scene, scene.camera, 64, 64).surface
        piece = np.where(surface < ROOM_SIDES, surface, 0)
        solid = surface >= ROOM_SIDES
        piece[solid] = ROOM_SIDES + scene.solids.thing[surface[solid] - ROOM_SIDES]
        expected = np.zeros((64, 64), int)
        for row in range(64):
            for column in range(64):
                for r, c in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
                    if 0 <= r < 64 and 0 <= c < 64 and piece[r, c] != piece[row, column] \
                            and view["depth"][row, column] <= view["depth"][r, c]:
                        expected[row, column] = 1
        assert np.array_equal(view["edge"], expected)


def test_keypoints_are_the_corners_that_no_solid_hides(views, reference):
    for scene, view in views.values():
        pixels, depth = scene.camera.project(scene.keypoints, 64, 64)
        visible = []
        for pixel, ahead, point in zip(pixels, depth, scene.keypoints, strict=True):
            if not (ahead > 0.05 and 0 <= pixel[0] < 64 and 0 <= pixel[1] < 64):
                continue
            # A camera that looks at the point itself, through its only pixel.
            offset = point - np.array(scene.camera.position)
            yaw, pitch = np.arctan2(-offset[0], offset[1]), np.arctan2(offset[2], np.hypot(*offset[:2]))
            seen, _, _ = reference.trace(scene, replace(scene.camera, yaw=yaw, pitch=pitch, roll=0.0), 1, 1)
            if seen[0, 0] > np.linalg.norm(offset) * 0.997:
                visible.append(pixel)
        np.testing.assert_allclose(view["keypoints"], heat_map(np.array(visible), 64, 64), atol=1e-3)
        for x, y in visible:
            assert view["keypoints"][int(y), int(x)] > 0.75


def test_saliency_covers_whole_objects(views):
    for _, view in views.values():
        salient = np.unique(view["instance"][view["saliency"] == 1])
        assert len(salient) and 0 not in salient
        assert np.array_equal(np.isin(view["instance"], salient), view["saliency"] == 1)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (20, 97), (96, 17)])
def test_any_size(height, width):
    view = render(generate(3), height, width)
    assert view["image"].shape == (height, width, 3) and view["depth"].shape == (height, width)


def test_bad_requests_are_clear():
    scene = generate(3)
    with pytest.raises(UserError, match="outside the room"):
        render(scene, 8, 8, camera=replace(scene.camera, position=(-1.0, 1.0, 1.0)))
    with pytest.raises(UserError, match="at least 1"):
        render(scene, 0, 8)
