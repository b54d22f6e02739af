"""Potted plants."""

from __future__ import annotations

import math

import numpy as np

from scenes.assembly import OBJECTS, rotation_about


@OBJECTS.register("plant")
def plant(assembly, rng, palette, small: bool = False) -> None:
    """A pot with long leaves, with a trunk and crown, or with a small conifer."""
    pot_material, leaf, trunk = palette.material(), palette.material(), palette.material()
    scale = rng.uniform(0.35, 0.5) if small else rng.uniform(0.8, 1.4)
    pot_height, pot_top = 0.26 * scale, 0.3 * scale
    bottom = rng.uniform(0.65, 1.0)
    # A frustum's size is its bottom diameter: the pot widens upwards by 1 / bottom.
    pot = (0, 0, pot_height / 2), (pot_top * bottom, pot_top * bottom, pot_height)
    assembly.cylinder(pot_material, *pot, taper=1 / bottom)
    shape = rng.choice(["leaves", "leaves", "crown", "conifer"])
    if shape == "leaves":
        count = int(rng.integers(7, 13))
        for index in range(count):
            around = 2 * math.pi * (index + rng.uniform(-0.3, 0.3)) / count
            lean = rng.uniform(0.15, 0.9)
            long = rng.uniform(0.45, 0.8) * scale
            turn = rotation_about(2, around) @ rotation_about(1, lean)
            centre = np.array([0, 0, pot_height]) + turn @ np.array([0, 0, long * 0.5])
            size = (0.025 * scale, rng.uniform(0.1, 0.17) * scale, long)
            assembly.ellipsoid(leaf, centre.tolist(), size, rotation=turn)
    elif shape == "crown":
        stem = rng.uniform(0.3, 0.5) * scale
        assembly.cylinder(trunk, (0, 0, pot_height + stem / 2), (0.045 * scale, 0.045 * scale, stem))
        for _ in range(int(rng.integers(2, 6))):
            size = rng.uniform(0.25, 0.42, 3) * scale
            x, y = rng.uniform(-0.1, 0.1, 2) * scale
            centre = (x, y, pot_height + stem + rng.uniform(-0.05, 0.2) * scale)
            assembly.ellipsoid(leaf, centre, size.tolist())
    else:
        tiers = int(rng.integers(2, 4))
        for tier in range(tiers):
            wide = (0.5 - 0.1 * tier) * scale
            high = 0.36 * scale
            z = pot_height + 0.06 * scale + tier * 0.22 * scale + high / 2
            assembly.cylinder(leaf, (0, 0, z), (wide, wide, high), taper=0.05)
        assembly.cylinder(trunk, (0, 0, pot_height + 0.05 * scale), (0.05 * scale,) * 2 + (0.12 * scale,))
