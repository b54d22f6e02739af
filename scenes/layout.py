"""Where things stand: footprints on the floor that do not overlap, and free stretches of wall."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from scenes.assembly import Assembly

_GAP = 0.01
"""Least distance from walls, metres; three times as much between things."""


@dataclass(frozen=True)
class Placed:
    """An assembly put into the room: its origin at x, y, z, turned by yaw (radians) about z."""

    assembly: Assembly
    x: float
    y: float
    z: float
    yaw: float

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Room coordinates of a point of the assembly's floor plane."""
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        return self.x + cos * x - sin * y, self.y + sin * x + cos * y


def corners(x: float, y: float, yaw: float, half_x: float, half_y: float) -> list[tuple[float, float]]:
    """The four corners of a turned rectangle."""
    cos, sin = math.cos(yaw), math.sin(yaw)
    return [(x + cos * a - sin * b, y + sin * a + cos * b)
            for a, b in ((-half_x, -half_y), (half_x, -half_y), (half_x, half_y), (-half_x, half_y))]


class Floor:
    """The floor of a room and what stands on it.

    Args:
        width, depth, height: the room, metres.
        rng: source of all positions.
    """

    def __init__(self, width: float, depth: float, height: float, rng: np.random.Generator) -> None:
        self.width, self.depth, self.height = width, depth, height
        self.rng = rng
        self.placed: list[Placed] = []
        self._taken: list[tuple[float, float, float, float, float]] = []
        self._walls: list[list[tuple[float, float, float]]] = [[], [], [], []]

    def place(self, assembly: Assembly, x: float, y: float, yaw: float) -> Placed | None:
        """Put an assembly on the floor, or return None when it would touch a wall or another one."""
        outline = corners(x, y, yaw, assembly.half_x, assembly.half_y)
        if any(not (_GAP <= px <= self.width - _GAP and _GAP <= py <= self.depth - _GAP)
               for px, py in outline):
            return None
        footprint = (x, y, yaw, assembly.half_x + 3 * _GAP, assembly.half_y + 3 * _GAP)
        if any(_overlap(footprint, other) for other in self._taken):
            return None
        self._taken.append((x, y, yaw, assembly.half_x, assembly.half_y))
        placed = Placed(assembly, x, y, 0.0, yaw)
        self.placed.append(placed)
        return placed

    def place_freely(self, assembly: Assembly, aligned: bool, tries: int = 12) -> Placed | None:
        """Somewhere on the floor; ``aligned`` with the walls up to a small angle."""
        for _ in range(tries):
            yaw = self.rng.uniform(-math.pi, math.pi)
            if aligned:
                yaw = round(yaw / (math.pi / 2)) * (math.pi / 2) + self.rng.normal(0, 0.06)
            x, y = self.rng.uniform(0.2, self.width - 0.2), self.rng.uniform(0.2, self.depth - 0.2)
            placed = self.place(assembly, x, y, yaw)
            if placed:
                return placed
        return None

    def place_at_wall(self, assembly: Assembly, tries: int = 12) -> Placed | None:
        """With its back to a wall."""
        for _ in range(tries):
            side = int(self.rng.integers(4))
            length = self.length(side)
            if length < 2 * assembly.half_x + 0.06:
                continue
            along = self.rng.uniform(assembly.half_x + 0.03, length - assembly.half_x - 0.03)
            gap = assembly.half_y + self.rng.uniform(0.012, 0.06)
            x, y = self.wall_point(side, along, gap)
            placed = self.place(assembly, x, y, side * math.pi / 2)
            if placed:
                self._walls[side].append((along, assembly.half_x, assembly.height))
                return placed
        return None

    def hang(self, assembly: Assembly, bottom: float, top: float, tries: int = 8) -> Placed | None:
        """On a wall, above low furniture and beside tall one, between two heights."""
        half = assembly.height  # the origin is in the middle of what hangs
        for _ in range(tries):
            side = int(self.rng.integers(4))
            length = self.length(side)
            if length < 2 * assembly.half_x + 0.2 or top - bottom < 2 * half:
                continue
            along = self.rng.uniform(assembly.half_x + 0.1, length - assembly.half_x - 0.1)
            middle = self.rng.uniform(bottom + half, top - half)
            if any(abs(along - at) < wide + assembly.half_x + 0.06 and high > middle - half - 0.05
                   for at, wide, high in self._walls[side]):
                continue
            x, y = self.wall_point(side, along, 0.001)
            placed = Placed(assembly, x, y, middle, side * math.pi / 2)
            self._walls[side].append((along, assembly.half_x, self.height))
            self.placed.append(placed)
            return placed
        return None

    def stand_on(self, assembly: Assembly, support: Placed, index: int) -> Placed | None:
        """On one of another's surfaces."""
        place = support.assembly.surfaces[index]
        reach = math.hypot(assembly.half_x, assembly.half_y)
        if reach > min(place.half_x, place.half_y):
            return None
        for _ in range(4):
            local_x = place.x + self.rng.uniform(-1, 1) * (place.half_x - reach)
            local_y = place.y + self.rng.uniform(-1, 1) * (place.half_y - reach)
            x, y = support.at(local_x, local_y)
            if any(other.z > 0.1 and math.hypot(other.x - x, other.y - y)
                   < reach + math.hypot(other.assembly.half_x, other.assembly.half_y)
                   for other in self.placed):
                continue
            placed = Placed(assembly, x, y, place.z, self.rng.uniform(-math.pi, math.pi))
            self.placed.append(placed)
            return placed
        return None

    def block(self, side: int, along: float, half: float) -> None:
        """Let nothing hang on a stretch of wall."""
        self._walls[side].append((along, half, self.height))

    def length(self, side: int) -> float:
        """Length of a wall. Side k has the yaw k * 90 degrees of what stands at it: 0 is y = depth."""
        return self.width if side % 2 == 0 else self.depth

    def wall_point(self, side: int, along: float, gap: float) -> tuple[float, float]:
        """The point at a distance ``gap`` from a wall."""
        return ((along, self.depth - gap), (gap, along), (along, gap), (self.width - gap, along))[side]


def _overlap(first, second) -> bool:
    """Whether two turned rectangles (x, y, yaw, half_x, half_y) meet: separating axes."""
    dx, dy = second[0] - first[0], second[1] - first[1]
    reach = math.hypot(first[3], first[4]) + math.hypot(second[3], second[4])
    if dx * dx + dy * dy > reach * reach:
        return False
    turn = second[2] - first[2]
    cos, sin = abs(math.cos(turn)), abs(math.sin(turn))
    for (_, _, yaw, a, b), (_, _, _, c, d) in ((first, second), (second, first)):
        ux, uy = math.cos(yaw), math.sin(yaw)
        if abs(dx * ux + dy * uy) > a + c * cos + d * sin:
            return False
        if abs(dy * ux - dx * uy) > b + c * sin + d * cos:
            return False
    return True
