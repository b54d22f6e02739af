"""A slow, obvious ray caster: every ray against every solid in float64, in room coordinates."""

from __future__ import annotations

import numpy as np

from scenes.scene import ROOM_SIDES
from scenes.shapes import BOX, ELLIPSOID


def rays(camera, height, width):
    """Directions [H, W, 3] whose parameter is the depth along the camera's axis."""
    right, up, back = camera.axes
    result = np.empty((height, width, 3))
    for row in range(height):
        for column in range(width):
            x = (column + 0.5 - width / 2) / (camera.focal * width)
            y = (height / 2 - row - 0.5) / (camera.focal * width)
            result[row, column] = x * right + y * up - back
    return result


def trace(scene, camera, height, width):
    """Depth [H, W], surface [H, W] and outward room normals [H, W, 3], without any culling."""
    direction = rays(camera, height, width).reshape(-1, 3)
    start = np.array(camera.position)
    count = len(direction)
    depth, surface, normal = np.full(count, np.inf), np.full(count, -1), np.zeros((count, 3))
    for side in range(ROOM_SIDES):
        axis = side // 2
        level = scene.size[axis] if side % 2 else 0.0
        with np.errstate(divide="ignore"):
            t = (level - start[axis]) / direction[:, axis]
        inward = np.zeros(3)
        inward[axis] = -1.0 if side % 2 else 1.0
        nearer = (t > 0) & (t < depth)
        depth[nearer], surface[nearer], normal[nearer] = t[nearer], side, inward
    solids = scene.solids
    for row in range(len(solids)):
        t, outward = _solid(solids, row, start, direction)
        nearer = (t > 1e-4) & (t < depth)
        depth[nearer], surface[nearer] = t[nearer], ROOM_SIDES + row
        normal[nearer] = outward[nearer]
    shape = (height, width)
    return depth.reshape(shape), surface.reshape(shape), normal.reshape(*shape, 3)


def _solid(solids, row, start, direction):
    rotation, half, centre = solids.rotation[row], solids.half[row], solids.centre[row]
    kind, taper = solids.kind[row], float(solids.taper[row])
    if kind == BOX:
        halfspaces = [(sign * rotation[:, axis], half[axis]) for axis in range(3) for sign in (-1, 1)]
        return _convex(halfspaces, None, start - centre, direction)
    origin = (start - centre) @ rotation / half
    heading = direction @ rotation / half
    if kind == ELLIPSOID:
        quadric = np.diag([1.0, 1.0, 1.0, -1.0])
        t, outward = _convex([], quadric, origin, heading)
    else:
        mean, slope = (1 + taper) / 2, (taper - 1) / 2
        quadric = np.diag([1.0, 1.0, -slope**2, -mean**2])
        quadric[2, 3] = quadric[3, 2] = -slope * mean
        ends = [(np.array([0.0, 0.0, sign]), 1.0) for sign in (-1, 1)]
        t, outward = _convex(ends, quadric, origin, heading)
    outward = (outward / half) @ rotation.T
    return t, outward / np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-12)


def _convex(halfspaces, quadric, origin, heading):
    """First point of each ray that meets all halfspaces (n . x <= h) and x' Q x <= 0."""
    candidates, outwards = [], []
    for outward, level in halfspaces:
        with np.errstate(divide="ignore", invalid="ignore"):
            candidates.append((level - origin @ outward) / (heading @ outward))
        outwards.append(np.broadcast_to(outward, heading.shape))
    if quadric is not None:
        at, step = np.append(origin, 1.0), np.column_stack([heading, np.zeros(len(heading))])
        a = np.einsum("ni,ij,nj->n", step, quadric, step)
        b = 2 * step @ quadric @ at
        c = at @ quadric @ at
        for sign in (-1, 1):
            with np.errstate(divide="ignore", invalid="ignore"):
                t = (-b + sign * np.sqrt(b * b - 4 * a * c)) / (2 * a)
            point = at + np.nan_to_num(t)[:, None] * step
            candidates.append(t)
            outwards.append((point @ quadric)[:, :3])
    best, normal = np.full(len(heading), np.inf), np.zeros_like(heading)
    for t, outward in zip(candidates, outwards, strict=True):
        with np.errstate(invalid="ignore"):
            point = origin + np.where(np.isfinite(t), t, 0)[:, None] * heading
            inside = np.isfinite(t) & (t > 0) & (t < best)
            for plane, level in halfspaces:
                inside &= point @ plane <= level + 1e-9
            if quadric is not None:
                full = np.column_stack([point, np.ones(len(point))])
                inside &= np.einsum("ni,ij,nj->n", full, quadric, full) <= 1e-9
        best[inside], normal[inside] = t[inside], outward[inside]
    return best, normal
