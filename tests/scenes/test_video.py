"""The moving camera: where it goes, and that what it sees moves as it should."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import scenes.video
from harness.errors import UserError
from scenes import generate, render
from scenes.dataset import seed_of
from scenes.video import SceneVideo, camera_path, film
from scenes.viewpoint import clearance


def scene(number: int, split: str = "test"):
    return generate(seed_of(split, number))


def test_the_way_stays_clear_of_walls_and_things():
    for number in range(12):
        room = scene(number)
        path = camera_path(room, 200)
        positions = np.array([camera.position for camera in path])
        assert path[0] == room.camera
        start = clearance(positions[:1], room.size, room.things)[0]
        spare = clearance(positions, room.size, room.things).min(axis=0)
        assert spare[0] > min(start[0], 0.2) - 0.005 and spare[1] > min(start[1], 0.3) - 0.005


def test_clearance_is_the_distance_to_boxes():
    """Thing by thing, along its axes."""
    room = scene(3)
    rng = np.random.default_rng(0)
    points = rng.uniform(0, room.size, (60, 3))
    found = clearance(points, room.size, room.things)
    sides = [min(*point, *(np.array(room.size) - point)) for point in points]
    np.testing.assert_allclose(found[:, 0], sides)
    for point, gap in zip(points, found[:, 1], strict=True):
        gaps = []
        for thing in room.things:
            along, across = thing.axes @ (point - thing.centre)[:2]
            gaps.append(max(abs(along) - thing.half[0], abs(across) - thing.half[1],
                            abs(point[2] - thing.centre[2]) - thing.half[2]))
        assert gap == pytest.approx(min(gaps))


def test_the_camera_moves_smoothly():
    moved = []
    for number in range(12):
        path = camera_path(scene(number), 24)
        positions = np.array([camera.position for camera in path])
        yaws = np.array([camera.yaw for camera in path])
        moved.append(np.abs(positions[-1] - positions[0]).max())
        # no step is longer than 2 times the mean one, nor differs much from the one before
        steps, turns = np.linalg.norm(np.diff(positions, axis=0), axis=1), np.diff(yaws)
        assert steps.max() < 2 * steps.mean() and np.abs(np.diff(positions, 2, axis=0)).max() < 0.03
        assert np.abs(turns).max() < 0.1 and np.abs(np.diff(turns)).max() < 0.02
        assert len({(camera.pitch, camera.roll, camera.focal) for camera in path}) == 1
    assert np.median(moved) > 0.3


def test_more_frames_are_the_same_way_in_smaller_steps():
    room = scene(1)
    for one, other in zip(camera_path(room, 7), camera_path(room, 13)[::2], strict=True):
        np.testing.assert_allclose((*one.position, one.yaw), (*other.position, other.yaw))
    assert len(camera_path(room, 1)) == 1


@pytest.mark.parametrize("number", [0, 5])
def test_what_is_seen_moves_as_it_is_projected(number):
    """A point of the first view, taken into the room by its depth and seen from later, is of the same instance."""
    room, side = scene(number), 96
    path = camera_path(room, 6)
    before = render(room, side, side, camera=path[0])
    x, y = path[0].screen(side, side)
    rays = np.stack(np.broadcast_arrays(x[None], y[:, None], -1.0), -1) * before["depth"][..., None]
    points = rays.reshape(-1, 3) @ path[0].axes + np.array(path[0].position)
    for camera in path[2:]:
        after = render(room, side, side, camera=camera)
        pixels, depth = camera.project(points, side, side)
        inside = (depth > 0) & (pixels > 1).all(1) & (pixels < side - 1).all(1)
        u, v = pixels[inside].astype(int).T
        # visible: what is seen there is as far away, and lies within one thing
        around = np.stack([after["instance"][v + a, u + b] for a in (-1, 0, 1) for b in (-1, 0, 1)])
        seen = (np.abs(after["depth"][v, u] / depth[inside] - 1) < 0.01) & (around == around[4]).all(0)
        truth = before["instance"].ravel()[inside]
        agree = (after["instance"][v, u] == truth)[seen]
        still = (after["instance"].ravel() == before["instance"].ravel())[inside][seen]
        assert seen.sum() > 2000 and (truth[seen] > 0).sum() > 300
        assert agree.mean() > 0.997 and still.mean() < 0.98


def test_objects_are_the_largest_things_of_the_first_frame_and_keep_their_numbers():
    room = scene(2)
    frames = list(film(room, 48, 64, 5))
    first = render(room, 48, 64)
    np.testing.assert_array_equal(frames[0][0], first["image"])
    counts = np.bincount(first["instance"].ravel())[1:]
    wanted = [thing for thing in np.argsort(-counts, kind="stable")[:5] if counts[thing] >= 0.01 * 48 * 64]
    assert 1 <= len(wanted) <= 5
    for camera, (image, objects) in zip(camera_path(room, 5), frames, strict=True):
        view = render(room, 48, 64, camera=camera)
        assert image.dtype == objects.dtype == np.uint8 and image.shape == (48, 64, 3)
        np.testing.assert_array_equal(image, view["image"])
        for number, thing in enumerate(wanted, 1):
            np.testing.assert_array_equal(objects == number, view["instance"] == thing + 1)
        assert objects.max() <= len(wanted)


def test_a_room_whose_things_are_all_small_has_one_object(monkeypatch):
    monkeypatch.setattr(scenes.video, "_LEAST_SHARE", 0.99)
    _, objects = next(film(scene(2), 32, 32, 2))
    assert set(np.unique(objects)) == {0, 1}


def test_a_video_is_rendered_once(tmp_path, monkeypatch):
    video = SceneVideo("test", 1, frames=3, size=32, root=tmp_path)
    frames = list(film(scene(1), 32, 32, 3))
    assert len(video) == 3
    for place, (image, objects) in enumerate(frames):
        np.testing.assert_array_equal(video.frame(place), image)
        np.testing.assert_array_equal(video.objects(place), objects)
    monkeypatch.setattr(scenes.video, "film", lambda *_: pytest.fail("rendered again"))
    for again in (SceneVideo("test", 1, frames=3, size=32, root=tmp_path), pickle.loads(pickle.dumps(video))):
        np.testing.assert_array_equal(again.frame(2), frames[2][0])
    assert len(pickle.dumps(video)) < 1000
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} <= {".npy", ".lock"}


def test_a_rendering_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def broken(*_):
        yield np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32), np.uint8)
        raise KeyboardInterrupt

    video = SceneVideo("test", 1, frames=3, size=32, root=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(scenes.video, "film", broken)
        with pytest.raises(KeyboardInterrupt):
            video.frame(0)
    assert not list(tmp_path.rglob("*.npy"))
    np.testing.assert_array_equal(video.frame(0), render(scene(1), 32, 32)["image"])


@pytest.mark.parametrize(("options", "message"), [({"frames": 1}, "1 frames"), ({"size": 8}, "8 pixels")])
def test_mistakes(options, message):
    with pytest.raises(UserError, match=message):
        SceneVideo("test", 0, **options)
