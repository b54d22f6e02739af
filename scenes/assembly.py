"""Building one object out of solids, in its own frame.

The frame of an object: origin on the floor under its middle, x to its right, y to its back, z up,
metres. What stands against a wall has the wall at its back (+y).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from harness.registry import Registry
from scenes.classes import PART_INDEX
from scenes.materials import Material, Palette
from scenes.shapes import BOX, ELLIPSOID, FRUSTUM

OBJECTS: Registry = Registry("object", "scenes.objects")
"""``build(assembly, rng, palette, **wishes)`` by class name: adds solids to the assembly."""

_UPRIGHT = np.eye(3)


@dataclass
class Solid:
    """A unit shape (:mod:`scenes.shapes`) placed in an object's frame."""

    kind: int
    centre: tuple[float, float, float]
    half: tuple[float, float, float]
    material: Material
    taper: float = 1.0
    part: int = 0
    rotation: np.ndarray = field(default_factory=lambda: _UPRIGHT)


@dataclass(frozen=True)
class Surface:
    """A horizontal rectangle that small things may stand on, in the object's frame."""

    x: float
    y: float
    z: float
    half_x: float
    half_y: float


class Assembly:
    """One object while it is built.

    Attributes:
        label: class name.
        half_x, half_y, height: extent of its bounding box; its base is on z = 0.
        solids, surfaces: what it is made of, what may stand on it.
        keypoints: (kind, point) pairs.
        bulb: where its light is, when it is a lamp.
        facts: attributes that it brings into the picture when it is visible.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self.solids: list[Solid] = []
        self.surfaces: list[Surface] = []
        self.keypoints: list[tuple[str, tuple[float, float, float]]] = []
        self.bulb: tuple[float, float, float] | None = None
        self.facts: list[str] = []
        self.half_x = self.half_y = self.height = 0.0

    def box(self, material, centre, size, part: str = "background", rotation=None) -> None:
        """Add a box of full extents ``size`` about ``centre``."""
        self._add(BOX, material, centre, size, 1.0, part, rotation)

    def ellipsoid(self, material, centre, size, part: str = "background", rotation=None) -> None:
        """Add an ellipsoid of full extents ``size`` about ``centre``."""
        self._add(ELLIPSOID, material, centre, size, 1.0, part, rotation)

    def cylinder(self, material, centre, size, part: str = "background", taper: float = 1.0,
                 rotation=None) -> None:
        """Add a cylinder or frustum; ``size`` holds the bottom diameters and the height."""
        self._add(FRUSTUM, material, centre, size, taper, part, rotation)

    def corners(self, kind: str, centre, size) -> None:
        """Mark the four upper corners of a box as keypoints."""
        (x, y, z), (w, d, h) = centre, size
        for sx, sy in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
            self.keypoints.append((kind, (x + sx * w / 2, y + sy * d / 2, z + h / 2)))

    def surface(self, x: float, y: float, z: float, width: float, depth: float) -> None:
        """Let small things stand on a rectangle."""
        self.surfaces.append(Surface(x, y, z, width / 2, depth / 2))

    def _add(self, kind, material, centre, size, taper, part, rotation) -> None:
        half = (size[0] / 2, size[1] / 2, size[2] / 2)
        turn = _UPRIGHT if rotation is None else rotation
        self.solids.append(Solid(kind, tuple(centre), half, material, taper, PART_INDEX[part], turn))
        if rotation is None:
            reach = half
        else:
            reach = np.abs(turn) @ np.array(half) if kind == BOX else np.sqrt((turn**2) @ np.square(half))
        self.half_x = max(self.half_x, abs(centre[0]) + float(reach[0]))
        self.half_y = max(self.half_y, abs(centre[1]) + float(reach[1]))
        self.height = max(self.height, centre[2] + float(reach[2]))


def build(name: str, rng: np.random.Generator, palette: Palette, **wishes) -> Assembly:
    """A new random object of class ``name``."""
    assembly = Assembly(name)
    OBJECTS.get(name)(assembly, rng, palette, **wishes)
    return assembly


def rotation_about(axis: int, angle: float) -> np.ndarray:
    """Rotation matrix [3, 3] about a coordinate axis, radians."""
    cos, sin = math.cos(angle), math.sin(angle)
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = cos
    matrix[i, j], matrix[j, i] = -sin, sin
    return matrix
