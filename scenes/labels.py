"""Every label of a view, read off its ray cast."""

from __future__ import annotations

import numpy as np

from scenes.camera import Camera
from scenes.classes import ATTRIBUTES, SCENE_TYPES, SEMSEG_INDEX, STUFF
from scenes.raycast import Hits, visible_points
from scenes.scene import CEILING, FLOOR, ROOM_SIDES, Scene
from scenes.shading import Surfaces, camera_normals

VISIBLE_SHARE = 0.0015
"""Share of the picture that something must cover for an attribute to mention it."""
CROWDED = 8
"""How many things must be visible in a crowded picture."""
SALIENT_SHARE = 0.6
"""Things whose saliency is at least this share of the greatest are salient too."""


def labels(scene: Scene, camera: Camera, hits: Hits, surfaces: Surfaces) -> dict[str, np.ndarray]:
    """All labels of a view.

    Args:
        scene, camera: what is seen from where.
        hits: the ray cast.
        surfaces: points and normals of the pixels.

    Returns:
        The label arrays of :func:`scenes.render`.
    """
    height, width = hits.depth.shape
    surface = hits.surface
    names = [thing.label for thing in scene.things]
    things = np.array([0 if name in STUFF else index + 1 for index, name in enumerate(names)], np.int32)
    classes = np.array([SEMSEG_INDEX[name] for name in names], np.uint8)
    room = [SEMSEG_INDEX[name] for name in ("wall", "wall", "wall", "wall", "floor", "ceiling")]
    owner = scene.solids.thing
    instance = np.concatenate([np.zeros(ROOM_SIDES, np.int32), things[owner]])[surface]
    semseg = np.concatenate([np.array(room, np.uint8), classes[owner]])[surface]
    parts = np.concatenate([np.zeros(ROOM_SIDES, np.uint8), scene.solids.part.astype(np.uint8)])[surface]
    piece = np.concatenate([np.arange(ROOM_SIDES), ROOM_SIDES + owner]).astype(np.int16)[surface]
    points = scene.keypoints
    visible = visible_points(scene, camera, hits, points) if len(points) else points[:, :2]
    return {
        "semseg": semseg,
        "depth": hits.depth,
        "normals": camera_normals(camera, surfaces, height, width),
        "edge": edges(piece, hits.depth),
        "saliency": saliency(instance),
        "parts": parts,
        "instance": instance,
        "instance_center": centre_offsets(instance, projected_centres(scene, camera, height, width)),
        "keypoints": heat_map(visible, height, width),
        "scene": np.int64(SCENE_TYPES.index(scene.kind)),
        "attributes": attributes(scene, surfaces, instance, semseg),
    }


def edges(piece: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Outlines of objects and of the room's sides.

    A pixel is an edge when one of its four neighbours belongs to another object or side and is not
    nearer: outlines lie on the occluding side and are one pixel wide.

    Args:
        piece: int [H, W], which object or side.
        depth: float32 [H, W].

    Returns:
        Uint8 [H, W], 0 or 1.
    """
    result = np.zeros(piece.shape, bool)
    for one, other in (((slice(None), slice(1, None)), (slice(None), slice(None, -1))),
                       ((slice(1, None), slice(None)), (slice(None, -1), slice(None)))):
        differ = piece[one] != piece[other]
        result[one] |= differ & (depth[one] <= depth[other])
        result[other] |= differ & (depth[other] <= depth[one])
    return result.view(np.uint8)


def saliency(instance: np.ndarray) -> np.ndarray:
    """The object or objects that take up most of the picture, pixels in the middle counting more.

    Args:
        instance: int32 [H, W], 0 without an object.

    Returns:
        Uint8 [H, W], 0 or 1.
    """
    height, width = instance.shape
    y = (np.arange(height) + 0.5) / height * 2 - 1
    x = (np.arange(width) + 0.5) / width * 2 - 1
    weight = np.exp(-1.5 * (y[:, None] ** 2 + x[None, :] ** 2))
    score = np.bincount(instance.ravel(), weights=weight.ravel())
    score[0] = 0
    chosen = (score >= SALIENT_SHARE * score.max()) & (score > 0)
    return chosen.astype(np.uint8)[instance]


def projected_centres(scene: Scene, camera: Camera, height: int, width: int) -> np.ndarray:
    """Where the middles of the things' bounding boxes appear.

    Returns:
        Float32 [1 + things, 2], x and y in pixels by instance number; not finite for number 0, for
        walls, and for centres that are behind the camera.
    """
    result = np.full((len(scene.things) + 1, 2), np.nan, np.float32)
    if scene.things:
        pixels, depth = camera.project(np.stack([thing.centre for thing in scene.things]), height, width)
        keep = (depth > 0.1) & np.array([thing.label not in STUFF for thing in scene.things])
        result[1:][keep] = pixels[keep]
    return result


def centre_offsets(instance: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Offset of every pixel's centre to its instance's centre.

    Args:
        instance: int [H, W].
        centres: float32 [instances, 2] from :func:`projected_centres`.

    Returns:
        Float32 [H, W, 2], (x, y) pixels; exactly zero where there is none.
    """
    height, width = instance.shape
    result = centres[instance]
    result[..., 0] -= np.arange(width, dtype=np.float32) + np.float32(0.5)
    result[..., 1] -= (np.arange(height, dtype=np.float32) + np.float32(0.5))[:, None]
    return np.nan_to_num(result, copy=False, nan=0.0)


def heat_map(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """The highest of Gaussians about points, of a standard deviation of width / 64.

    Args:
        points: [K, 2], x and y in pixels.

    Returns:
        Float32 [H, W] in [0, 1].
    """
    result = np.zeros((height, width), np.float32)
    spread = width / 64
    reach = int(4 * spread) + 1
    for x, y in points:
        left, right = max(int(x) - reach, 0), min(int(x) + reach + 1, width)
        top, bottom = max(int(y) - reach, 0), min(int(y) + reach + 1, height)
        across = np.exp(-((np.arange(left, right) + 0.5 - x) ** 2) / (2 * spread**2)).astype(np.float32)
        down = np.exp(-((np.arange(top, bottom) + 0.5 - y) ** 2) / (2 * spread**2)).astype(np.float32)
        area = result[top:bottom, left:right]
        np.maximum(area, down[:, None] * across, out=area)
    return result


def attributes(scene: Scene, surfaces: Surfaces, instance: np.ndarray, semseg: np.ndarray) -> np.ndarray:
    """What the picture shows, as ``ATTRIBUTES`` names it: uint8 [A], 0 or 1."""
    enough = VISIBLE_SHARE * instance.size
    counts = np.bincount(instance.ravel(), minlength=len(scene.things) + 1)
    facts: set[str] = set()
    for thing, count in zip(scene.things, counts[1:], strict=True):
        if count >= enough:
            facts.update(thing.facts)
    if (counts[1:] >= enough).sum() >= CROWDED:
        facts.add("crowded")
    if len(scene.lights) > 1:
        facts.add("several_lights")
    sides = np.diff(surfaces.starts[: ROOM_SIDES + 1])
    if sides[CEILING] >= enough:
        facts.add("ceiling_visible")
    rug = 0 if surfaces.rug is None else int(surfaces.rug.sum())
    if rug >= enough:
        facts.add("rug")
    if sides[FLOOR] - rug >= enough and scene.materials[scene.sides[FLOOR]].textured:
        facts.add("textured_floor")
    if any(sides[side] >= enough and scene.materials[scene.sides[side]].textured for side in range(4)):
        facts.add("textured_walls")
    return np.array([name in facts for name in ATTRIBUTES], np.uint8)
