"""Which surface each pixel sees, and how far away: one ray a pixel, solids culled by screen bounds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.errors import UserError
from scenes.camera import Camera
from scenes.linear import transform
from scenes.scene import CEILING, FLOOR, ROOM_SIDES, Scene, Solids
from scenes.shapes import FRUSTUM, intersect

_NEAR_PLANE = 0.02
_CUBE = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)


@dataclass(frozen=True)
class Frames:
    """The solids' own frames seen from one point.

    Args:
        to_unit: float32 [P, 3, 3], room directions to unit-shape directions.
        origin: float32 [P, 3], the point in each unit shape's frame.
    """

    to_unit: np.ndarray
    origin: np.ndarray

    @classmethod
    def from_point(cls, solids: Solids, point) -> Frames:
        """Frames as seen from a point in the room."""
        to_unit = solids.rotation.transpose(0, 2, 1) / solids.half[:, :, None]
        origin = np.einsum("pij,pj->pi", to_unit, np.asarray(point, np.float64) - solids.centre)
        return cls(to_unit.astype(np.float32), origin.astype(np.float32))


@dataclass(frozen=True)
class Hits:
    """What a camera sees.

    Args:
        depth: float32 [H, W], metres along the camera axis.
        surface: int16 [H, W], room side or ``ROOM_SIDES`` + row of the solid.
        rectangles: int [P, 4], top, bottom, left, right of each solid's bounds on the screen.
    """

    depth: np.ndarray
    surface: np.ndarray
    rectangles: np.ndarray


def cast(scene: Scene, camera: Camera, height: int, width: int) -> Hits:
    """Cast the ray through every pixel's centre.

    Args:
        scene: the room.
        camera: a camera inside it.
        height, width: pixels.

    Returns:
        The nearest surface of every pixel.

    Raises:
        UserError: the camera is outside the room.
    """
    if not all(0 < at < extent for at, extent in zip(camera.position, scene.size, strict=True)):
        raise UserError(f"the camera at {camera.position} is outside the room of {scene.size} metres: "
                        "choose a position inside")
    x, y = camera.screen(height, width)
    right, up, back = camera.axes
    depth, surface = _room(scene, camera, x, y)
    rectangles = _bounds(scene.solids, camera, height, width)
    frames = Frames.from_point(scene.solids, camera.position)
    columns = np.einsum("pij,j->pi", frames.to_unit, right.astype(np.float32))
    rows = np.einsum("pij,j->pi", frames.to_unit, up.astype(np.float32))
    ahead = -np.einsum("pij,j->pi", frames.to_unit, back.astype(np.float32))
    kinds, tapers = scene.solids.kind.tolist(), scene.solids.taper.tolist()
    origins = frames.origin.tolist()
    for index, (top, bottom, left, end) in enumerate(rectangles.tolist()):
        if top >= bottom or left >= end:
            continue
        # A direction is affine in the pixel's position: a row and a column make it.
        across = columns[index][:, None] * x[left:end] + ahead[index][:, None]
        down = rows[index][:, None] * y[top:bottom]
        direction = across[:, None, :] + down[:, :, None]
        t = intersect(kinds[index], tapers[index], origins[index], direction)
        nearest = depth[top:bottom, left:end]
        nearer = t < nearest
        np.copyto(nearest, t, where=nearer)
        np.copyto(surface[top:bottom, left:end], np.int16(ROOM_SIDES + index), where=nearer)
    return Hits(depth, surface, rectangles)


def visible_points(scene: Scene, camera: Camera, hits: Hits, points: np.ndarray) -> np.ndarray:
    """Pixel coordinates of those points that nothing hides.

    Args:
        scene, camera: what was rendered.
        hits: its ray cast.
        points: float64 [K, 3], metres.

    Returns:
        Float64 [visible, 2], x and y in pixels.
    """
    height, width = hits.depth.shape
    pixels, depth = camera.project(points, height, width)
    x, y = pixels.T
    seen = np.flatnonzero((depth > 0.05) & (x >= 0) & (x < width) & (y >= 0) & (y < height))
    if not len(seen):
        return pixels[:0]
    x, y = x[seen], y[seen]
    direction = (points[seen] - np.array(camera.position)).T.astype(np.float32)
    frames = Frames.from_point(scene.solids, camera.position)
    top, bottom, left, right = hits.rectangles.T
    within = (x >= left[:, None] - 1) & (x <= right[:, None] + 1)
    within &= (y >= top[:, None] - 1) & (y <= bottom[:, None] + 1)
    within &= (bottom > top)[:, None]
    hidden = np.zeros(len(seen), bool)
    for index in np.flatnonzero(within.any(axis=1)):
        chosen = np.flatnonzero(within[index])
        local = transform(frames.to_unit[index], direction[:, chosen])
        kind, taper = int(scene.solids.kind[index]), float(scene.solids.taper[index])
        t = intersect(kind, taper, frames.origin[index], local)
        hidden[chosen] |= t < 0.997  # a marked point lies on its own solid, at t = 1
    return pixels[seen[~hidden]]


def _room(scene: Scene, camera: Camera, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Depth and side of the empty room."""
    axes = camera.axes.astype(np.float32)
    depth = surface = None
    for axis in range(3):
        step = (axes[0, axis] * x - axes[2, axis])[None, :] + (axes[1, axis] * y)[:, None]
        positive = step > 0
        near, far = -camera.position[axis], scene.size[axis] - camera.position[axis]
        with np.errstate(divide="ignore"):
            t = np.where(positive, np.float32(far), np.float32(near)) / step
        np.abs(t, out=t)  # a step of -0.0 goes nowhere: infinitely far
        low, high = (2 * axis, 2 * axis + 1) if axis < 2 else (FLOOR, CEILING)
        side = np.where(positive, np.int16(high), np.int16(low))
        if depth is None:
            depth, surface = t, side
        else:
            nearer = t < depth
            np.copyto(depth, t, where=nearer)
            np.copyto(surface, side, where=nearer)
    return depth, surface


def _bounds(solids: Solids, camera: Camera, height: int, width: int) -> np.ndarray:
    """Screen rectangles [P, 4] (top, bottom, left, right; half open) that hold each solid."""
    reach = solids.half.copy()
    reach[:, :2] *= np.where(solids.kind == FRUSTUM, np.maximum(solids.taper, 1), 1)[:, None]
    axes = camera.axes
    middle = (solids.centre - np.array(camera.position)) @ axes.T
    legs = np.einsum("ij,pjk->pik", axes, solids.rotation) * reach[:, None, :]
    corner = middle[:, None, :] + np.einsum("ck,pik->pci", _CUBE, legs)
    ahead = -corner[:, :, 2]
    behind = ahead < _NEAR_PLANE
    safe = np.where(behind, 1.0, ahead)
    scale = camera.focal * width
    px = width / 2 + scale * corner[:, :, 0] / safe
    py = height / 2 - scale * corner[:, :, 1] / safe
    # Pixel i has its centre at i + 0.5; one pixel of margin covers rounding.
    result = np.stack([np.floor(py.min(1)) - 1, np.ceil(py.max(1)) + 1,
                       np.floor(px.min(1)) - 1, np.ceil(px.max(1)) + 1], axis=1)
    result[behind.any(axis=1)] = (0, height, 0, width)  # around or beside the camera: look everywhere
    result[behind.all(axis=1)] = 0
    result[:, :2] = np.clip(result[:, :2], 0, height)
    result[:, 2:] = np.clip(result[:, 2:], 0, width)
    return result.astype(np.intp)
