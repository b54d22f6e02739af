"""The three solids that everything is made of, in their unit form.

A solid is a unit shape under a rotation, a shift and a scale along its own axes; rays are moved into
its frame, where their parameter t stays what it was.

- box: [-1, 1]^3
- ellipsoid: the unit ball
- frustum: -1 <= z <= 1, radius 1 at the bottom and ``taper`` at the top (1: cylinder, 0: cone)
"""

from __future__ import annotations

import numpy as np

BOX, ELLIPSOID, FRUSTUM = 0, 1, 2
_NEAR = np.float32(1e-4)
_INFINITY = np.float32(np.inf)


def intersect(kind: int, taper: float, origin, direction) -> np.ndarray:
    """Distance along rays from one origin to where they enter a unit shape.

    Args:
        kind: BOX, ELLIPSOID or FRUSTUM.
        taper: top radius of a frustum.
        origin: three scalars, in the shape's frame.
        direction: three float32 arrays of one shape, in the shape's frame, of any length.

    Returns:
        Float32 array t (the hit is ``origin + t * direction``), infinite where the ray misses. Rays
        that start inside a box or ellipsoid miss it.
    """
    return _INTERSECT[kind](taper, origin, direction)


def normals(kind: int, taper: float, points: np.ndarray) -> np.ndarray:
    """Outward normals of a unit shape at points on its surface, not yet of unit length.

    Args:
        kind: BOX, ELLIPSOID or FRUSTUM.
        taper: top radius of a frustum.
        points: float32 [3, N] in the shape's frame.

    Returns:
        Float32 [3, N] in the shape's frame.
    """
    return _NORMALS[kind](taper, points)


def _box(taper, origin, direction):
    enter = leave = None
    for start, step in zip(origin, direction, strict=True):
        inverse = np.float32(1) / step
        middle = inverse * np.float32(-start)
        np.abs(inverse, out=inverse)
        near = middle - inverse
        middle += inverse
        if enter is None:
            enter, leave = near, middle
        else:
            np.maximum(enter, near, out=enter)
            np.minimum(leave, middle, out=leave)
    enter[~((enter < leave) & (enter > _NEAR))] = _INFINITY
    return enter


def _ellipsoid(taper, origin, direction):
    x, y, z = (np.float32(value) for value in origin)
    dx, dy, dz = direction
    a = dx * dx
    a += dy * dy
    a += dz * dz
    b = dx * x
    b += dy * y
    b += dz * z
    square = b * b
    square -= a * (x * x + y * y + z * z - np.float32(1))
    missed = square <= 0
    np.maximum(square, 0, out=square)
    np.sqrt(square, out=square)
    square += b
    t = np.divide(square, a, out=square)
    np.negative(t, out=t)
    missed |= t < _NEAR
    t[missed] = _INFINITY
    return t


def _frustum(taper, origin, direction):
    # Convex, so the entry is the nearest of at most four crossings: two of the side, two of the caps.
    x, y, z = (np.float32(value) for value in origin)
    dx, dy, dz = direction
    mean, slope = np.float32((1 + taper) / 2), np.float32((taper - 1) / 2)
    radius = mean + slope * z
    a = dx * dx
    a += dy * dy
    b = dx * x
    b += dy * y
    c = x * x + y * y - radius * radius
    if slope != 0:
        growth = slope * dz
        a -= growth * growth
        b -= growth * radius
    square = b * b
    square -= a * c
    best = np.full(a.shape, _INFINITY, np.float32)
    real = square > 0
    root = np.sqrt(np.maximum(square, 0))
    inverse = np.float32(1) / a
    sides = (-(b + root), root - b) if slope != 0 else (-(b + root),)
    for numerator in sides:
        t = numerator * inverse
        inside = np.abs(dz * t + z) <= 1
        inside &= real
        inside &= t > _NEAR
        np.copyto(best, t, where=inside & (t < best))
    down = np.float32(1) / dz
    # Only the cap towards the origin can be an entry.
    for cap, end in (((-1.0, 1.0),) if z < -1 else ()) + (((1.0, taper),) if z > 1 else ()):
        t = np.float32(cap - z) * down
        px = dx * t
        px += x
        py = dy * t
        py += y
        inside = px * px + py * py <= np.float32(end * end)
        inside &= t > _NEAR
        np.copyto(best, t, where=inside & (t < best))
    return best


def _box_normals(taper, points):
    axis = np.argmax(np.abs(points), axis=0)
    result = np.zeros_like(points)
    columns = np.arange(points.shape[1])
    result[axis, columns] = np.sign(points[axis, columns])
    return result


def _ellipsoid_normals(taper, points):
    return points


def _frustum_normals(taper, points):
    x, y, z = points
    slope = np.float32((taper - 1) / 2)
    radius = np.float32((1 + taper) / 2) + slope * z
    result = np.stack([x, y, -slope * radius])
    # On a cap when nearer to it than to the side.
    side = np.abs(radius - np.sqrt(x * x + y * y))
    cap = (1 - np.abs(z)) < side
    result[:2, cap] = 0
    result[2, cap] = np.sign(z[cap])
    return result


_INTERSECT = {BOX: _box, ELLIPSOID: _ellipsoid, FRUSTUM: _frustum}
_NORMALS = {BOX: _box_normals, ELLIPSOID: _ellipsoid_normals, FRUSTUM: _frustum_normals}
