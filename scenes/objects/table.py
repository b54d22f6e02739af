"""Tables and desks."""

from __future__ import annotations

from scenes.assembly import OBJECTS


@OBJECTS.register("table")
def table(assembly, rng, palette, low: bool = False, desk: bool = False) -> None:
    """A round or rectangular top on legs, on a pedestal, on side panels, or on a chest of drawers."""
    top_material = palette.material()
    leg_material = top_material if rng.random() < 0.5 else palette.material()
    height = rng.uniform(0.38, 0.5) if low else rng.uniform(0.68, 0.8)
    thickness = rng.uniform(0.025, 0.06)
    under = height - thickness
    if not desk and rng.random() < 0.35:
        width = rng.uniform(0.7, 1.3)
        depth = width * (1.0 if rng.random() < 0.6 else rng.uniform(0.65, 0.95))
        assembly.cylinder(top_material, (0, 0, height - thickness / 2), (width, depth, thickness), "top")
        assembly.facts.append("round_table")
        inset = 0.62
        assembly.surface(0, 0, height, width * 0.66, depth * 0.66)
    else:
        width = rng.uniform(0.9, 1.8) if not low else rng.uniform(0.7, 1.3)
        depth = rng.uniform(0.5, 0.75) if desk or low else rng.uniform(0.65, 0.95)
        top = (0, 0, height - thickness / 2), (width, depth, thickness)
        assembly.box(top_material, *top, "top")
        assembly.corners("table_corner", *top)
        inset = 0.9
        assembly.surface(0, 0, height, width * 0.92, depth * 0.9)
    legs = rng.choice(["posts", "posts", "round", "pedestal", "panels"])
    if legs == "pedestal":
        pole = rng.uniform(0.06, 0.14)
        assembly.cylinder(leg_material, (0, 0, under / 2), (pole, pole, under), "support")
        assembly.cylinder(leg_material, (0, 0, 0.02), (width * 0.5, depth * 0.5, 0.04), "support", 0.7)
    elif legs == "panels":
        for side in (-1, 1):
            centre = (side * (width * inset / 2 - 0.03), 0, under / 2)
            assembly.box(leg_material, centre, (0.04, depth * inset * 0.9, under), "support")
    else:
        thick = rng.uniform(0.04, 0.09)
        x, y = width * inset / 2 - thick / 2, depth * inset / 2 - thick / 2
        for sx in (-1, 1):
            for sy in (-1, 1):
                leg = (sx * x, sy * y, under / 2), (thick, thick, under), "support"
                if legs == "posts":
                    assembly.box(leg_material, *leg)
                else:
                    assembly.cylinder(leg_material, *leg)
