"""What a scene is: everything needed to render it from any camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scenes.camera import Camera
from scenes.materials import Material

ROOM_SIDES = 6
"""The room's own surfaces come first: walls x = 0, x = width, y = 0, y = depth, floor, ceiling."""
FLOOR, CEILING = 4, 5


@dataclass(frozen=True)
class Light:
    """A point light.

    Args:
        position: metres.
        colour: linear RGB intensity, float32 [3].
        owner: index of the thing it shines from and whose solids do not shadow it, or -1.
    """

    position: tuple[float, float, float]
    colour: np.ndarray
    owner: int = -1


@dataclass(frozen=True)
class Thing:
    """One object, or a piece of the room such as a pillar.

    Args:
        label: class name, one of ``SEMSEG_CLASSES``.
        centre: middle of its bounding box, metres.
        axes: [2, 2] rows: its x and y axes in the floor plane.
        half: half extents of its bounding box along its axes.
        facts: attributes it shows when it is visible.
    """

    label: str
    centre: np.ndarray
    axes: np.ndarray
    half: np.ndarray
    facts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Solids:
    """All solids of a scene, sorted by material. Row i is surface ``ROOM_SIDES + i``.

    Args:
        kind: int [P], shape of :mod:`scenes.shapes`.
        taper: float32 [P], top radius of frusta.
        centre: float64 [P, 3], metres.
        rotation: float64 [P, 3, 3], solid to room.
        half: float64 [P, 3], half extents.
        thing: int [P], index of the thing it belongs to.
        part: int [P], index into ``PART_CLASSES``.
        material: int [P], index into the scene's materials.
    """

    kind: np.ndarray
    taper: np.ndarray
    centre: np.ndarray
    rotation: np.ndarray
    half: np.ndarray
    thing: np.ndarray
    part: np.ndarray
    material: np.ndarray

    def __len__(self) -> int:
        return len(self.kind)


@dataclass(frozen=True)
class Rug:
    """A rectangle of other material on the floor.

    Args:
        centre: x, y.
        axes: [2, 2] rows: its axes in the floor plane.
        half: half extents.
        round: an ellipse instead of a rectangle.
        material: index into the scene's materials.
    """

    centre: np.ndarray
    axes: np.ndarray
    half: np.ndarray
    round: bool
    material: int

    def covers(self, points: np.ndarray) -> np.ndarray:
        """Which floor points [>= 2, N] lie on the rug: bool [N]."""
        x, y = points[0] - np.float32(self.centre[0]), points[1] - np.float32(self.centre[1])
        (ax, ay), (bx, by) = (self.axes / self.half[:, None]).astype(np.float32)
        u, v = ax * x + ay * y, bx * x + by * y
        return u * u + v * v < 1 if self.round else (np.abs(u) < 1) & (np.abs(v) < 1)


@dataclass(frozen=True)
class Scene:
    """A furnished room with its lights and the camera it is seen from.

    Args:
        seed: what it was generated from.
        kind: one of ``SCENE_TYPES``.
        size: width, depth, height of the room, metres.
        things, solids, materials, lights, rug: the contents; ``rug`` may be None.
        sides: int [6], materials of the room's own surfaces.
        camera: the view; any other may be given to ``render``.
        ambient: linear RGB light from everywhere, float32 [3].
        exposure: mean brightness that the picture is developed to.
        keypoints: float64 [K, 3], metres, marked points on things.
        keypoint_thing: int [K], the thing that each belongs to.
    """

    seed: int
    kind: str
    size: tuple[float, float, float]
    things: tuple[Thing, ...]
    solids: Solids
    materials: tuple[Material, ...]
    sides: np.ndarray
    lights: tuple[Light, ...]
    rug: Rug | None
    camera: Camera
    ambient: np.ndarray
    exposure: float
    keypoints: np.ndarray
    keypoint_thing: np.ndarray
