"""Sofas and armchairs."""

from __future__ import annotations

from scenes.assembly import OBJECTS


@OBJECTS.register("sofa")
def sofa(assembly, rng, palette) -> None:
    """An upholstered base with one to three seat cushions, a back and two arms."""
    cloth = palette.material()
    cushion = cloth if rng.random() < 0.6 else palette.material()
    seats = int(rng.choice([1, 2, 2, 3]))
    arm = rng.uniform(0.12, 0.22)
    inner = seats * rng.uniform(0.5, 0.62)
    width, depth = inner + 2 * arm, rng.uniform(0.75, 0.95)
    feet, base = rng.uniform(0.05, 0.14), rng.uniform(0.2, 0.26)
    seat = feet + base
    back_depth = rng.uniform(0.16, 0.26)
    back_height = rng.uniform(0.72, 0.95)
    for sx in (-1, 1):
        for sy in (-1, 1):
            centre = (sx * (width / 2 - 0.08), sy * (depth / 2 - 0.08), feet / 2)
            assembly.box(cushion, centre, (0.06, 0.06, feet), "support")
    assembly.box(cloth, (0, 0, feet + base / 2), (width, depth, base), "seat")
    centre = (0, depth / 2 - back_depth / 2, (seat + back_height) / 2)
    assembly.box(cloth, centre, (width - 2 * arm, back_depth, back_height - seat), "back")
    seat_depth = depth - back_depth
    for index in range(seats):
        x = -inner / 2 + (index + 0.5) * inner / seats
        size = (inner / seats - 0.015, seat_depth, 0.14)
        assembly.box(cushion, (x, -back_depth / 2, seat + 0.07), size, "seat")
    arm_height = seat + rng.uniform(0.16, 0.32)
    for side in (-1, 1):
        x = side * (width / 2 - arm / 2)
        assembly.box(cloth, (x, 0, (seat + arm_height) / 2), (arm, depth, arm_height - seat), "arm")
    for _ in range(int(rng.integers(0, 3))):
        x = rng.uniform(-inner / 2 + 0.22, inner / 2 - 0.22) if inner > 0.5 else 0.0
        size = (0.4, 0.2, 0.36)
        centre = (x, depth / 2 - back_depth - 0.09, seat + 0.3)
        assembly.ellipsoid(palette.material(), centre, size, "back")
    front = (0, -back_depth / 2, seat + 0.07), (inner, seat_depth, 0.14)
    assembly.corners("seat_corner", *front)
