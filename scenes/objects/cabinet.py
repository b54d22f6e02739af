"""Cabinets, chests of drawers and wardrobes."""

from __future__ import annotations

from scenes.assembly import OBJECTS


@OBJECTS.register("cabinet")
def cabinet(assembly, rng, palette) -> None:
    """A closed body with doors or drawers that stand a little proud, and handles."""
    body = palette.material()
    front = body if rng.random() < 0.35 else palette.material()
    metal = palette.material()
    tall = rng.random() < 0.35
    width = rng.uniform(0.5, 1.3)
    depth = rng.uniform(0.35, 0.6)
    height = rng.uniform(1.5, 2.05) if tall else rng.uniform(0.45, 1.1)
    feet = rng.choice([0.0, rng.uniform(0.04, 0.15)])
    if feet:
        for side in (-1, 1):
            centre = (side * (width / 2 - 0.05), 0, feet / 2)
            assembly.box(metal, centre, (0.05, depth * 0.85, feet))
    main = (0, 0, (feet + height) / 2), (width, depth, height - feet)
    assembly.box(body, *main)
    assembly.corners("cabinet_corner", *main)
    inner_width, inner_height = width - 0.05, height - feet - 0.05
    middle = (feet + height) / 2
    knob_round = rng.random() < 0.5
    drawers = not tall and rng.random() < 0.5
    count = int(rng.integers(2, 5)) if drawers else (1 if width < 0.65 else int(rng.integers(2, 4)))
    for index in range(count):
        offset = (index + 0.5) / count - 0.5
        if drawers:
            centre = (0, -depth / 2 - 0.01, middle + offset * inner_height)
            size = (inner_width, 0.025, inner_height / count - 0.025)
            knob = (0, centre[2])
        else:
            centre = (offset * inner_width, -depth / 2 - 0.01, middle)
            size = (inner_width / count - 0.025, 0.025, inner_height)
            knob = (centre[0] + (0.36 if index % 2 == 0 else -0.36) * size[0], middle)
        assembly.box(front, centre, size)
        at = (knob[0], -depth / 2 - 0.04, knob[1])
        if knob_round:
            assembly.ellipsoid(metal, at, (0.045, 0.045, 0.045))
        else:
            assembly.box(metal, at, (0.14, 0.03, 0.025) if drawers else (0.025, 0.03, 0.16))
    if not tall:
        assembly.surface(0, 0, height, width * 0.9, depth * 0.85)
