"""Balls."""

from __future__ import annotations

from scenes.assembly import OBJECTS


@OBJECTS.register("ball")
def ball(assembly, rng, palette, small: bool = False) -> None:
    """A ball that lies on its support."""
    size = rng.uniform(0.12, 0.2) if small else rng.uniform(0.22, 0.65)
    assembly.ellipsoid(palette.material(), (0, 0, size / 2), (size, size, size))
