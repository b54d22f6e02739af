"""A camera that moves through a scene, and the objects it sees."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from harness.errors import UserError
from harness.files import cache_folder, locked, write_atomically
from harness.progress import progress
from harness.seeding import numpy_generator
from scenes.camera import Camera
from scenes.dataset import seed_of
from scenes.rendering import render
from scenes.rooms import RENDERER_VERSION, generate
from scenes.scene import Scene
from scenes.viewpoint import clearance

VIDEO_VERSION = 1
"""Raised whenever a video of any scene changes though its pictures do not; part of the cache's name."""

_TRIES = 64
_WALL, _THING = 0.2, 0.3
_MOST_OBJECTS = 5
_LEAST_SHARE = 0.01


def camera_path(scene: Scene, frames: int) -> list[Camera]:
    """Views of a scene from a camera that moves smoothly, beginning with its own.

    It walks along a curve and turns, partly with what was in the middle of the picture. More frames are the same way
    in smaller steps. Of some random ways the first is taken that stays 0.2 m from walls and 0.3 m from things, or
    as far as the way begins; they get shorter, so that one always is found.

    Args:
        scene: from :func:`scenes.generate`.
        frames: how many views.
    """
    rng = numpy_generator("path of a camera", scene.seed)
    start = scene.camera
    origin = np.array(start.position)
    spare = np.minimum(clearance(origin[None], scene.size, scene.things)[0], (_WALL, _THING))
    fine = np.linspace(0, 1, 65)
    for attempt in range(_TRIES):
        length = rng.uniform(0.5, 1.1) * (1 - attempt / (_TRIES - 1))
        heading, bend = rng.uniform(-math.pi, math.pi), rng.normal(0, 0.25)
        rise, turn, follow = rng.normal(0, 0.06), rng.normal(0, 0.12), rng.uniform(0.4, 0.8)
        along = np.array([math.cos(heading), math.sin(heading), rise]) * length
        aside = np.array([-math.sin(heading), math.cos(heading), 0.0]) * length * bend
        if (clearance(origin + _curve(fine, along, aside), scene.size, scene.things) >= spare - 1e-9).all():
            break
    times = _ease(np.linspace(0, 1, frames))
    positions = origin + _curve(times, along, aside)
    # the place two metres ahead stays where it was as far as the camera follows it
    target = origin[:2] + 2 * np.array([-math.sin(start.yaw), math.cos(start.yaw)])
    ahead = target - positions[:, :2]
    wanted = np.arctan2(-ahead[:, 0], ahead[:, 1])
    wanted = (wanted - wanted[0] + math.pi) % (2 * math.pi) - math.pi
    yaws = start.yaw + follow * wanted + turn * times
    return [dataclasses.replace(start, position=tuple(map(float, position)), yaw=float(yaw))
            for position, yaw in zip(positions, yaws, strict=True)]


def _ease(times: np.ndarray) -> np.ndarray:
    """From 0 to 1 with a gentle start and stop."""
    return (1 - np.cos(math.pi * times)) / 2


def _curve(times: np.ndarray, along: np.ndarray, aside: np.ndarray) -> np.ndarray:
    """Ways gone, ``[N, 3]``, at times from 0 to 1."""
    return times[:, None] * along + np.sin(math.pi * times)[:, None] * aside


def film(scene: Scene, height: int, width: int, frames: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Views along :func:`camera_path` with their objects.

    Objects are the up to five things that cover most of the first frame, at least 1 % of it each, or the largest one;
    the largest is 1. The same thing has the same number in all frames.

    Args:
        scene: from :func:`scenes.generate`.
        height: of the frames, pixels.
        width: of the frames, pixels.
        frames: how many.

    Yields:
        (image uint8 ``[H, W, 3]``, objects uint8 ``[H, W]``) of each frame; 0 is none of the objects.
    """
    numbers: np.ndarray | None = None
    for camera in camera_path(scene, frames):
        view = render(scene, height, width, camera=camera)
        if numbers is None:
            numbers = _number_objects(view["instance"], len(scene.things))
        yield view["image"], numbers[view["instance"]]


def _number_objects(instance: np.ndarray, things: int) -> np.ndarray:
    """The number of each thing's instance, uint8 ``[1 + things]``; 0 for those that are no objects."""
    share = np.bincount(instance.ravel(), minlength=things + 1)[1:] / instance.size
    largest = np.argsort(-share, kind="stable")[:_MOST_OBJECTS]
    numbers = np.zeros(things + 1, np.uint8)
    for number, thing in enumerate((thing for thing in largest if share[thing] > 0), 1):
        if number == 1 or share[thing] >= _LEAST_SHARE:
            numbers[1 + thing] = number
    return numbers


class SceneVideo:
    """The video of one scene of a split, rendered on first use into a cache on disk, then memory-mapped.

    Args:
        split: of the built-in data set.
        number: of the scene in the split.
        frames: how many.
        size: height and width, pixels.
        root: cache folder; by default ``$TASKLIFT_CACHE`` or ``~/.cache/tasklift``.

    Raises:
        UserError: a number of frames or a size out of range, or a full disk.
    """

    def __init__(self, split: str, number: int, frames: int = 24, size: int = 128,
                 root: str | Path | None = None) -> None:
        if not 2 <= frames <= 10_000:
            raise UserError(f"cannot make videos of {frames} frames: choose 2 to 10000")
        if not 16 <= size <= 4096:
            raise UserError(f"cannot make videos of {size} pixels: choose a size from 16 to 4096")
        self.split, self.number, self.frames, self.size = split, number, frames, size
        base = Path(root).expanduser() if root else cache_folder()
        self.path = (base / f"scenes-v{RENDERER_VERSION}" / f"videos-v{VIDEO_VERSION}-{split}-{size}-{frames}"
                     / f"{number}.npy")
        self._mapped: np.ndarray | None = None

    def __len__(self) -> int:
        return self.frames

    @property
    def scene(self) -> Scene:
        """What is filmed."""
        return generate(seed_of(self.split, self.number))

    def frame(self, number: int) -> np.ndarray:
        """uint8 ``[H, W, 3]``."""
        return np.array(self._arrays()[number, ..., :3])

    def objects(self, number: int) -> np.ndarray:
        """Which object each pixel shows, uint8 ``[H, W]``; 0 none."""
        return np.array(self._arrays()[number, ..., 3])

    def _arrays(self) -> np.ndarray:
        """uint8 ``[frames, H, W, 4]``: colours, then objects."""
        if self._mapped is None:
            with locked(self.path.with_suffix(".lock")):
                if not self.path.exists():
                    self._render()
            self._mapped = np.load(self.path, mmap_mode="r", allow_pickle=False)
        return self._mapped

    def _render(self) -> None:
        found = np.empty((self.frames, self.size, self.size, 4), np.uint8)
        with progress(self.frames, unit="frame", description=f"rendering video {self.number}", leave=False,
                      delay=2) as bar:
            for number, (image, objects) in enumerate(film(self.scene, self.size, self.size, self.frames)):
                found[number, ..., :3], found[number, ..., 3] = image, objects
                bar.update()
        write_atomically(self.path, lambda file: np.save(file, found, allow_pickle=False))

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_mapped": None}
