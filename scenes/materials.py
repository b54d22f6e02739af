"""Palettes and procedural solid textures. No class of object has colours or textures of its own."""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass

import numpy as np

from harness.registry import Registry
from scenes.linear import transform

TEXTURES: Registry = Registry("texture")
"""``texture(points [3, N] in texture units, phase) -> blend [N] in [0, 1]`` between two colours."""


@dataclass(frozen=True)
class Material:
    """What a surface looks like.

    Args:
        texture: name in :data:`TEXTURES`.
        first, second: linear RGB reflectances between which the texture blends.
        scale: length of one texture unit, metres.
        rotation: float32 [3, 3], orientation of the texture.
        phase: float32 [3], shift in texture units.
        gloss: strength of the highlight.
        emission: light it gives off, as a multiple of its reflectance.
    """

    texture: str
    first: np.ndarray
    second: np.ndarray
    scale: float
    rotation: np.ndarray
    phase: np.ndarray
    gloss: float = 0.0
    emission: float = 0.0

    @property
    def textured(self) -> bool:
        """Whether a viewer sees a pattern (and not one colour, or two nearly equal ones)."""
        return self.texture != "plain" and float(np.abs(self.first - self.second).max()) > 0.12

    def reflectance(self, points: np.ndarray, footprint: np.ndarray) -> np.ndarray:
        """Linear RGB at surface points.

        Args:
            points: float32 [3, N], metres, in the solid's axes.
            footprint: float32 [N], metres that a pixel covers; finer detail fades to its mean.

        Returns:
            Float32 [3, N], or [3, 1] when it is the same everywhere.
        """
        if self.texture == "plain":
            return self.first[:, None]
        units = np.stack(transform(self.rotation / np.float32(self.scale), points))
        units += self.phase[:, None]
        blend = TEXTURES.get(self.texture)(units)
        fade = footprint * np.float32(-2.5 / self.scale) + np.float32(2)
        blend = (blend - np.float32(0.5)) * np.clip(fade, 0, 1) + np.float32(0.5)
        return self.first[:, None] + (self.second - self.first)[:, None] * blend


class Palette:
    """The handful of colours of one scene, from which every material of it is mixed."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        hue = rng.random()
        colours = []
        for _ in range(7):
            shift = rng.choice([0.0, 0.05, 0.33, 0.5]) + rng.normal(0, 0.06)
            saturation = rng.beta(1.1, 3.4)
            value = rng.uniform(0.22, 0.95)
            colours.append(colorsys.hsv_to_rgb((hue + shift) % 1.0, saturation, value))
        self.colours = np.array(colours, np.float32) ** np.float32(2.2)

    def colour(self) -> np.ndarray:
        """One colour near one of the palette's, linear RGB float32 [3]."""
        base = self.colours[self.rng.integers(len(self.colours))]
        return np.clip(base * np.exp(self.rng.normal(0, 0.12, 3)), 0.015, 0.95).astype(np.float32)

    def material(self, emission: float = 0.0) -> Material:
        """A new material: palette colours, any texture, any orientation."""
        rng = self.rng
        names = TEXTURES.names()
        texture = "plain" if rng.random() < 0.3 else names[rng.integers(len(names))]
        first = self.colour()
        strength = rng.uniform(0.3, 1.0)
        second = (first + (self.colour() - first) * strength).astype(np.float32)
        quarter = np.eye(3, dtype=np.float32)[list(_ORDERS[rng.integers(6)])]
        turn = rng.choice([0.0, 0.0, math.pi / 4, rng.uniform(0, math.pi)])
        cos, sin = math.cos(turn), math.sin(turn)
        rotation = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], np.float32) @ quarter
        return Material(
            texture=texture, first=first, second=second, scale=float(np.exp(rng.uniform(-2.9, -0.7))),
            rotation=rotation, phase=rng.uniform(0, 32, 3).astype(np.float32),
            gloss=float(rng.choice([0.0, 0.0, 0.15, 0.35])), emission=emission,
        )


_ORDERS = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
_LATTICE = np.random.Generator(np.random.PCG64(7)).random(32**3, dtype=np.float32)


def value_noise(points: np.ndarray) -> np.ndarray:
    """Smooth noise in [0, 1] with features of one unit: trilinear interpolation of a random lattice.

    Args:
        points: float32 [3, N].

    Returns:
        Float32 [N]; repeats every 32 units.
    """
    floor = np.floor(points)
    fraction = points - floor
    fraction *= fraction * (np.float32(3) - np.float32(2) * fraction)
    cell = floor.astype(np.int32)
    low = cell & 31
    cell += 1
    cell &= 31
    x0, y0, z0 = low[0] << 10, low[1] << 5, low[2]
    x1, y1, z1 = cell[0] << 10, cell[1] << 5, cell[2]
    fx, fy, fz = fraction
    rows = []
    for x in (x0, x1):
        for y in (y0, y1):
            row = x + y
            near = _LATTICE[row + z0]
            near += (_LATTICE[row + z1] - near) * fz
            rows.append(near)
    left = rows[0] + (rows[1] - rows[0]) * fy
    right = rows[2] + (rows[3] - rows[2]) * fy
    return left + (right - left) * fx


def _fraction(values: np.ndarray) -> np.ndarray:
    return values - np.floor(values)


@TEXTURES.register("plain")
def plain(points: np.ndarray) -> np.ndarray:
    """One colour."""
    return np.zeros(points.shape[1], np.float32)


@TEXTURES.register("checker")
def checker(points: np.ndarray) -> np.ndarray:
    """Cubes of alternating colour."""
    cells = np.floor(points).sum(axis=0)
    return cells - np.float32(2) * np.floor(cells * np.float32(0.5))


@TEXTURES.register("stripes")
def stripes(points: np.ndarray) -> np.ndarray:
    """Bands across two axes, so that most faces show them."""
    return (_fraction(points[0] + np.float32(0.37) * points[1]) < 0.45).astype(np.float32)


@TEXTURES.register("dots")
def dots(points: np.ndarray) -> np.ndarray:
    """Balls on a cubic lattice."""
    offset = _fraction(points) - np.float32(0.5)
    return (np.einsum("kn,kn->n", offset, offset) < 0.22).astype(np.float32)


@TEXTURES.register("tiles")
def tiles(points: np.ndarray) -> np.ndarray:
    """Square tiles with joints, each tile a little lighter or darker."""
    inside = np.abs(_fraction(points) - np.float32(0.5)).max(axis=0) < 0.46
    cell = np.floor(points).astype(np.int32) & 31
    tone = _LATTICE[(cell[0] << 10) + (cell[1] << 5) + cell[2]]
    return inside * (np.float32(0.6) + np.float32(0.4) * tone)


@TEXTURES.register("bricks")
def bricks(points: np.ndarray) -> np.ndarray:
    """Running bond: every other course is shifted by half a brick."""
    rows = np.floor(points[2] * np.float32(2))
    shift = np.float32(0.5) * (rows - np.float32(2) * np.floor(rows * np.float32(0.5)))
    across = np.abs(_fraction(points[0] + points[1] + shift) - np.float32(0.5)) < 0.46
    along = np.abs(_fraction(points[2] * np.float32(2)) - np.float32(0.5)) < 0.42
    return (across & along).astype(np.float32)


@TEXTURES.register("noise")
def noise(points: np.ndarray) -> np.ndarray:
    """Clouds of two octaves."""
    blend = value_noise(points * np.float32(1.5))
    blend += np.float32(0.5) * value_noise(points * np.float32(3.1))
    return np.clip(blend * np.float32(1.6) - np.float32(0.7), 0, 1)


@TEXTURES.register("wood")
def wood(points: np.ndarray) -> np.ndarray:
    """Growth rings about the first axis, bent by noise and stretched along it."""
    stretched = points * np.array([[0.15], [1.0], [1.0]], np.float32)
    rings = np.hypot(stretched[1] - 16, stretched[2] - 16) * np.float32(2.5)
    rings += np.float32(1.2) * value_noise(stretched)
    return np.abs(_fraction(rings) * np.float32(2) - np.float32(1))


@TEXTURES.register("marble")
def marble(points: np.ndarray) -> np.ndarray:
    """Veins: a wave along a diagonal, bent by noise."""
    wave = (points[0] + points[1] + points[2]) * np.float32(2)
    wave += np.float32(6) * value_noise(points)
    return (np.float32(0.5) + np.float32(0.5) * np.sin(wave)) ** 3


@TEXTURES.register("weave")
def weave(points: np.ndarray) -> np.ndarray:
    """Crossing soft stripes, as of cloth."""
    waves = np.sin(points * np.float32(2 * math.pi))
    return np.clip(np.float32(0.5) + np.float32(0.35) * (waves[0] + waves[1] * waves[2]), 0, 1)
