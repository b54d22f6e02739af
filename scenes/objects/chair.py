"""Chairs and stools."""

from __future__ import annotations

import math

from scenes.assembly import OBJECTS, rotation_about


@OBJECTS.register("chair")
def chair(assembly, rng, palette, office: bool = False) -> None:
    """A seat on legs or a column, with a back of one panel or of slats, at times with arms."""
    seat_material = palette.material()
    frame = seat_material if rng.random() < 0.4 else palette.material()
    width, depth = rng.uniform(0.4, 0.52), rng.uniform(0.4, 0.5)
    height, thickness = rng.uniform(0.42, 0.5), rng.uniform(0.03, 0.1)
    seat = (0, 0, height - thickness / 2), (width, depth, thickness)
    if rng.random() < 0.25:
        assembly.cylinder(seat_material, *seat, "seat")
    else:
        assembly.box(seat_material, *seat, "seat")
        assembly.corners("seat_corner", *seat)
    under = height - thickness
    if office or rng.random() < 0.15:
        assembly.cylinder(frame, (0, 0, under / 2 + 0.03), (0.07, 0.07, under - 0.06), "support")
        for index in range(3):
            turn = rotation_about(2, index * math.pi / 3)
            size = (width * 1.05, 0.05, 0.05 + 0.003 * index)
            assembly.box(frame, (0, 0, 0.04), size, "support", turn)
    else:
        thick = rng.uniform(0.03, 0.055)
        x, y = width / 2 - thick / 2 - 0.02, depth / 2 - thick / 2 - 0.02
        round_legs = rng.random() < 0.4
        for sx in (-1, 1):
            for sy in (-1, 1):
                leg = (sx * x, sy * y, under / 2), (thick, thick, under), "support"
                if round_legs:
                    assembly.cylinder(frame, *leg)
                else:
                    assembly.box(frame, *leg)
    back = rng.uniform(0.38, 0.6)
    behind = depth / 2 - 0.02
    if rng.random() < 0.5:
        gap = rng.choice([0.0, 0.12])
        middle = height + gap + (back - gap) / 2
        assembly.box(seat_material, (0, behind, middle), (width * 0.94, 0.045, back - gap), "back")
        if gap:
            assembly.box(frame, (0, behind, height + gap / 2), (0.08, 0.03, gap), "back")
    else:
        for side in (-1, 1):
            centre = (side * (width / 2 - 0.025), behind, height + back / 2)
            assembly.box(frame, centre, (0.04, 0.04, back), "back")
        bars = int(rng.integers(1, 4))
        for bar in range(bars):
            centre = (0, behind, height + back * (1 - 0.28 * bar) - 0.05)
            assembly.box(frame, centre, (width - 0.06, 0.025, 0.08), "back")
    if rng.random() < 0.25:
        for side in (-1, 1):
            x = side * (width / 2 + 0.005)
            assembly.box(frame, (x, 0.02, height + 0.2), (0.045, depth * 0.85, 0.035), "arm")
            assembly.box(frame, (x, -depth * 0.33, height + 0.09), (0.035, 0.035, 0.2), "arm")
