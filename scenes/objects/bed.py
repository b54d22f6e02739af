"""Beds."""

from __future__ import annotations

from scenes.assembly import OBJECTS


@OBJECTS.register("bed")
def bed(assembly, rng, palette) -> None:
    """A mattress on a frame, a headboard at the wall, pillows, and often a blanket."""
    frame, sheet, blanket = palette.material(), palette.material(), palette.material()
    double = rng.random() < 0.5
    width = rng.uniform(1.4, 1.8) if double else rng.uniform(0.85, 1.1)
    length = rng.uniform(1.85, 2.1)
    feet = rng.uniform(0.04, 0.2)
    base, mattress = rng.uniform(0.1, 0.2), rng.uniform(0.14, 0.25)
    for sx in (-1, 1):
        for sy in (-1, 1):
            centre = (sx * (width / 2 - 0.06), sy * (length / 2 - 0.06), feet / 2)
            assembly.box(frame, centre, (0.08, 0.08, feet), "support")
    assembly.box(frame, (0, 0, feet + base / 2), (width, length, base), "support")
    low = feet + base
    body = (0, -0.01, low + mattress / 2), (width - 0.06, length - 0.06, mattress)
    assembly.box(sheet, *body, "seat")
    assembly.corners("bed_corner", *body)
    top = low + mattress
    if rng.random() < 0.75:
        cover = rng.uniform(0.45, 0.75) * length
        centre = (0, -length / 2 + cover / 2 - 0.005, top - mattress * 0.3)
        assembly.box(blanket, centre, (width + 0.02, cover, mattress * 0.6 + 0.06), "seat")
    if rng.random() < 0.8:
        high = top + rng.uniform(0.2, 0.6)
        assembly.box(frame, (0, length / 2 + 0.025, high / 2), (width, 0.05, high), "back")
    for side in (-1, 1) if double else (0,):
        centre = (side * width / 4, length / 2 - 0.28, top + 0.05)
        size = (min(0.65, width * 0.6), 0.4, 0.18)
        if rng.random() < 0.5:
            assembly.ellipsoid(sheet, centre, size, "seat")
        else:
            assembly.box(sheet, centre, (size[0], size[1], 0.12), "seat")
