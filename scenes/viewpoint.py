"""Where the camera stands: inside the room, outside furniture, with something to see."""

from __future__ import annotations

import math

import numpy as np

from scenes.camera import Camera
from scenes.scene import Thing

_CANDIDATES = 32


def choose_camera(size: tuple[float, float, float], things: tuple[Thing, ...],
                  rng: np.random.Generator) -> Camera:
    """The best of some random cameras: many things in view at a good distance, none in the way.

    Args:
        size: width, depth, height of the room, metres.
        things: what is in it.
        rng: source of the candidates.

    Returns:
        A camera whose centre is at least 0.2 m from walls and 0.3 m from things.
    """
    width, depth, height = size
    focal = 0.5 / math.tan(math.radians(rng.uniform(54, 78)) / 2)
    n = _CANDIDATES
    margin = 0.22
    x, y = rng.uniform(margin, width - margin, n), rng.uniform(margin, depth - margin, n)
    # Half of them near a wall, as people with cameras stand.
    wall = rng.integers(0, 8, n)
    x = np.where(wall == 0, margin, np.where(wall == 1, width - margin, x))
    y = np.where(wall == 2, margin, np.where(wall == 3, depth - margin, y))
    z = rng.uniform(1.05, min(2.0, height - 0.45), n)
    position = np.stack([x, y, z], axis=1)
    centre = np.array([thing.centre for thing in things if thing.label != "wall"]).reshape(-1, 3)
    if len(centre):
        target = centre[rng.integers(0, len(centre), n)]
        middle = np.array([width / 2, depth / 2, 0.7])
        target = target + (middle - target) * rng.uniform(0, 1, (n, 1))
    else:
        target = np.tile([width / 2, depth / 2, 0.7], (n, 1))
    ahead = target - position
    yaw = np.arctan2(-ahead[:, 0], ahead[:, 1]) + rng.normal(0, 0.12, n)
    pitch = np.clip(np.arctan2(ahead[:, 2], np.hypot(ahead[:, 0], ahead[:, 1])) * 0.75, -0.55, 0.0)
    pitch = pitch + rng.normal(0.0, 0.06, n)
    score = rng.uniform(0, 1.5, n)
    for thing in things:
        offset = position - thing.centre
        flat = np.abs(offset[:, :2] @ thing.axes.T) - thing.half[:2]
        above = np.abs(offset[:, 2]) - thing.half[2]
        gap = np.sqrt(np.square(np.maximum(np.column_stack([flat, above]), 0)).sum(axis=1))
        score -= 100.0 * ((flat.max(axis=1) < 0.3) & (above < 0.3))
        # In the camera's frame: how far ahead, how far to the side.
        forward = -(-np.sin(yaw) * offset[:, 0] + np.cos(yaw) * offset[:, 1])
        sideways = np.cos(yaw) * offset[:, 0] + np.sin(yaw) * offset[:, 1]
        seen = (forward > 0.8) & (np.abs(sideways) * focal < 0.48 * forward)
        if thing.label != "wall":
            score += seen * (0.6 if thing.label in ("window", "picture") else 1.0)
        score -= 3.0 * (seen & (gap < 0.9)) + 1.5 * ((forward > 0) & (gap < 0.6))
    # Room to look into: distance along the view to the wall.
    with np.errstate(divide="ignore"):
        to_x = np.where(-np.sin(yaw) > 0, width - x, x) / np.abs(np.sin(yaw))
        to_y = np.where(np.cos(yaw) > 0, depth - y, y) / np.abs(np.cos(yaw))
    score += 0.7 * np.minimum(np.minimum(to_x, to_y), 5.0)
    best = int(np.argmax(score))
    return Camera(
        position=(float(x[best]), float(y[best]), float(z[best])), yaw=float(yaw[best]),
        pitch=float(pitch[best]), roll=float(rng.normal(0, 0.025)), focal=focal,
    )


def clearance(positions: np.ndarray, size: tuple[float, float, float], things: tuple[Thing, ...]) -> np.ndarray:
    """How far points are from what is around them.

    Args:
        positions: ``[N, 3]``, metres.
        size: width, depth, height of the room.
        things: what is in it.

    Returns:
        ``[N, 2]`` metres: to the nearest side of the room, and to the nearest thing's bounding box along its axes, less
        than zero inside.
    """
    sides = np.minimum(positions, np.array(size) - positions).min(axis=1)
    nearest = np.full(len(positions), np.inf)
    for thing in things:
        offset = positions - thing.centre
        flat = np.abs(offset[:, :2] @ thing.axes.T) - thing.half[:2]
        above = np.abs(offset[:, 2]) - thing.half[2]
        nearest = np.minimum(nearest, np.column_stack([flat, above]).max(axis=1))
    return np.stack([sides, nearest], axis=1)
