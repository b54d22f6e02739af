"""The colour of what is seen: textures, lights with shadows, development to 8 bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scenes.camera import Camera
from scenes.linear import transform
from scenes.raycast import Frames, Hits
from scenes.scene import FLOOR, ROOM_SIDES, Light, Scene
from scenes.shapes import intersect, normals

_SIDE_NORMALS = np.array([(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)], np.float32)


@dataclass(frozen=True)
class Surfaces:
    """The visible points, sorted by surface, so that each solid and each material is one slice.

    Args:
        order: int [N], flat pixel of each point.
        starts: int [S + 1], slice of each surface.
        points: three float32 [N], room coordinates.
        normals: three float32 [N], unit, towards the camera.
        local: float32 [3, N], metres in the solid's axes (texture coordinates).
        view: three float32 [N], unit, towards the camera.
        rug: bool [number of floor points], or None without a rug.
    """

    order: np.ndarray
    starts: np.ndarray
    points: list[np.ndarray]
    normals: list[np.ndarray]
    local: np.ndarray
    view: list[np.ndarray]
    rug: np.ndarray | None


def gather_surfaces(scene: Scene, camera: Camera, hits: Hits) -> Surfaces:
    """Positions and normals of what the pixels see.

    Args:
        scene, camera: what was cast.
        hits: its result.
    """
    height, width = hits.depth.shape
    flat = hits.surface.ravel()
    count = ROOM_SIDES + len(scene.solids)
    order = np.argsort(flat, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(flat, minlength=count))])
    x, y = camera.screen(height, width)
    axes = camera.axes.astype(np.float32)
    depth = hits.depth.ravel()[order]
    toward = []
    for axis in range(3):
        step = (axes[0, axis] * x - axes[2, axis])[None, :] + (axes[1, axis] * y)[:, None]
        toward.append(step.ravel()[order] * depth)
    points = [step + np.float32(at) for step, at in zip(toward, camera.position, strict=True)]
    normal = np.empty((3, len(order)), np.float32)
    local = np.empty((3, len(order)), np.float32)
    room_end = starts[ROOM_SIDES]
    for axis in range(3):
        local[axis, :room_end] = points[axis][:room_end]
    for side in range(ROOM_SIDES):
        normal[:, starts[side]:starts[side + 1]] = _SIDE_NORMALS[side][:, None]
    solids = scene.solids
    frames = Frames.from_point(solids, camera.position)
    half = solids.half.astype(np.float32)
    back = np.ascontiguousarray(frames.to_unit.transpose(0, 2, 1))
    for index in np.flatnonzero(np.diff(starts[ROOM_SIDES:])):
        part = slice(starts[ROOM_SIDES + index], starts[ROOM_SIDES + index + 1])
        unit = np.stack(transform(frames.to_unit[index], [step[part] for step in toward]))
        unit += frames.origin[index][:, None]
        outward = normals(int(solids.kind[index]), float(solids.taper[index]), unit)
        for axis, values in enumerate(transform(back[index], outward)):
            normal[axis, part] = values
        np.multiply(unit, half[index][:, None], out=local[:, part])
    nx, ny, nz = normal
    length = np.sqrt(nx * nx + ny * ny + nz * nz)
    unit_normal = [nx / length, ny / length, nz / length]
    dx, dy, dz = toward
    distance = -np.sqrt(dx * dx + dy * dy + dz * dz)
    view = [dx / distance, dy / distance, dz / distance]
    rug = None
    if scene.rug is not None:
        ground = slice(starts[FLOOR], starts[FLOOR + 1])
        rug = scene.rug.covers(np.stack([points[0][ground], points[1][ground]]))
    return Surfaces(order, starts, points, unit_normal, local, view, rug)


def shade(scene: Scene, camera: Camera, hits: Hits, surfaces: Surfaces) -> np.ndarray:
    """Colour of every pixel.

    Args:
        scene, camera: what was cast.
        hits: the ray cast.
        surfaces: from :func:`gather_surfaces`.

    Returns:
        Uint8 [H, W, 3].
    """
    height, width = hits.depth.shape
    reflectance, emission = _reflectances(scene, camera, hits, surfaces)
    nearness = _corner_shade(scene, surfaces)
    light = [nearness * value for value in scene.ambient]
    gloss = _gloss(scene, surfaces)
    for lamp in scene.lights:
        amount = _illumination(scene, surfaces, lamp, gloss)
        for channel in range(3):
            light[channel] += amount * lamp.colour[channel]
    colour = np.empty((3, len(surfaces.order)), np.float32)
    for channel in range(3):
        np.multiply(reflectance[channel], light[channel] + emission, out=colour[channel])
    mean = np.mean(colour, dtype=np.float64)
    gain = np.float32(scene.exposure / max(mean, 1e-6))
    # Film-like shoulder, then a gamma of 2.
    developed = np.sqrt(np.float32(1) - np.exp(colour * (gain * np.float32(-1.5))))
    image = np.empty((height * width, 3), np.uint8)
    image[surfaces.order] = (developed * np.float32(255) + np.float32(0.5)).astype(np.uint8).T
    return image.reshape(height, width, 3)


def camera_normals(camera: Camera, surfaces: Surfaces, height: int, width: int) -> np.ndarray:
    """Normals in the camera frame: float32 [H, W, 3], x right, y up, z towards the viewer."""
    result = np.empty((height * width, 3), np.float32)
    result[surfaces.order] = np.stack(transform(camera.axes.astype(np.float32), surfaces.normals), axis=1)
    return result.reshape(height, width, 3)


def _reflectances(scene, camera, hits, surfaces) -> tuple[np.ndarray, np.ndarray]:
    count = len(surfaces.order)
    colour = np.empty((3, count), np.float32)
    emission = np.zeros(count, np.float32)
    cosine = sum(n * v for n, v in zip(surfaces.normals, surfaces.view, strict=True))
    footprint = hits.depth.ravel()[surfaces.order] / np.maximum(cosine, np.float32(0.2))
    footprint *= np.float32(1.0 / (camera.focal * hits.depth.shape[1]))
    owner = np.concatenate([scene.sides, scene.solids.material])
    runs = np.flatnonzero(np.diff(owner)) + 1
    for first, last in zip([0, *runs], [*runs, len(owner)], strict=True):
        part = slice(surfaces.starts[first], surfaces.starts[last])
        if part.start < part.stop:
            material = scene.materials[owner[first]]
            colour[:, part] = material.reflectance(surfaces.local[:, part], footprint[part])
            emission[part] = material.emission
    if surfaces.rug is not None and surfaces.rug.any():
        where = surfaces.starts[FLOOR] + np.flatnonzero(surfaces.rug)
        material = scene.materials[scene.rug.material]
        colour[:, where] = material.reflectance(surfaces.local[:, where], footprint[where])
    return colour, emission


def _gloss(scene, surfaces) -> np.ndarray:
    owner = np.concatenate([scene.sides, scene.solids.material])
    each = np.array([material.gloss for material in scene.materials], np.float32)
    return np.repeat(each[owner], np.diff(surfaces.starts))


def _corner_shade(scene, surfaces) -> np.ndarray:
    """Less light from everywhere near the room's sides: an occlusion that is known in closed form."""
    shade_ = np.ones(len(surfaces.order), np.float32)
    for side in range(ROOM_SIDES):
        axis, upper = (side // 2, side % 2) if side < FLOOR else (2, side - FLOOR)
        gap = surfaces.points[axis]
        gap = np.float32(scene.size[axis]) - gap if upper else gap
        facing = surfaces.normals[axis] * np.float32(-1 if upper else 1)
        ratio = np.maximum(gap, 0) * np.float32(1 / 0.3)
        amount = np.float32(0.45) / (np.float32(1) + ratio * ratio)
        amount *= np.float32(1) - np.maximum(facing, 0)
        shade_ *= np.float32(1) - amount
    return shade_


def _illumination(scene: Scene, surfaces: Surfaces, lamp: Light, gloss: np.ndarray) -> np.ndarray:
    """Light that arrives from one lamp, with highlight: float32 [N]."""
    result = np.zeros(len(surfaces.order), np.float32)
    ray = [point - np.float32(at) for point, at in zip(surfaces.points, lamp.position, strict=True)]
    facing = -sum(n * r for n, r in zip(surfaces.normals, ray, strict=True))
    lit = np.flatnonzero(facing > 0)
    if not len(lit):
        return result
    ray = [values[lit] for values in ray]
    square = sum(values * values for values in ray)
    distance = np.sqrt(square)
    normal = [values[lit] for values in surfaces.normals]
    cosine = facing[lit] / distance
    amount = cosine / (np.float32(0.6) + np.float32(0.12) * square)
    shine = gloss[lit]
    if shine.any():
        # Phong's highlight: the mirrored ray against the view.
        spread = sum((r / distance + np.float32(2) * cosine * n) * surfaces.view[axis][lit]
                     for axis, (r, n) in enumerate(zip(ray, normal, strict=True)))
        spread = np.maximum(spread, 0)
        spread *= spread
        spread *= spread
        spread *= spread
        spread *= spread
        amount += shine * spread * np.float32(2)
    amount[_shadowed(scene, lamp, ray, distance)] = 0
    result[lit] = amount
    return result


def _shadowed(scene: Scene, lamp: Light, ray: list[np.ndarray], distance: np.ndarray) -> np.ndarray:
    """Which rays from a lamp to visible points meet something before: bool [lit]."""
    solids = scene.solids
    frames = Frames.from_point(solids, lamp.position)
    dark = np.zeros(len(distance), bool)
    origin = np.array(lamp.position)
    origins = frames.origin.tolist()
    members = [np.flatnonzero(solids.thing == index) for index in range(len(scene.things))]
    for index, thing in enumerate(scene.things):
        if index == lamp.owner:
            continue
        chosen = _in_cone(thing.centre - origin, float(np.linalg.norm(thing.half)), ray, distance)
        chosen = chosen[~dark[chosen]]
        if not len(chosen):
            continue
        near = [values[chosen] for values in ray]
        blocked = np.zeros(len(chosen), bool)
        for solid in members[index]:
            direction = transform(frames.to_unit[solid], near)
            t = intersect(int(solids.kind[solid]), float(solids.taper[solid]), origins[solid], direction)
            blocked |= t < np.float32(0.998)
        dark[chosen[blocked]] = True
    return dark


def _in_cone(offset: np.ndarray, radius: float, ray: list[np.ndarray], distance: np.ndarray) -> np.ndarray:
    """Indices of the points that a ball at ``offset`` from the lamp may keep the light from."""
    away = float(np.sqrt(offset @ offset))
    if away <= radius:
        return np.arange(len(distance))
    axis = (offset / away).astype(np.float32)
    cosine = np.float32(np.sqrt(1 - (radius / away) ** 2) - 1e-4)
    along = ray[0] * axis[0]
    along += ray[1] * axis[1]
    along += ray[2] * axis[2]
    inside = along > distance * cosine
    inside &= distance > np.float32(away - radius)
    return np.flatnonzero(inside)
