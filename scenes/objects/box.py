"""Boxes, crates and stacks of them."""

from __future__ import annotations

from scenes.assembly import OBJECTS, rotation_about


@OBJECTS.register("box")
def box(assembly, rng, palette, small: bool = False) -> None:
    """A closed box with a lid, a box with open flaps, or two boxes on top of each other."""
    material = palette.material()
    scale = 0.4 if small else 1.0
    width, depth = rng.uniform(0.3, 0.65) * scale, rng.uniform(0.28, 0.5) * scale
    height = rng.uniform(0.22, 0.5) * scale
    body = (0, 0, height / 2), (width, depth, height)
    assembly.box(material, *body)
    style = rng.choice(["lid", "plain", "flaps", "stack"])
    if style == "lid":
        lid = (0, 0, height + 0.005), (width * 1.06, depth * 1.06, 0.07 * scale)
        assembly.box(palette.material(), *lid)
        assembly.corners("box_corner", *lid)
        return
    assembly.corners("box_corner", *body)
    if style == "flaps":
        for side in (-1, 1):
            turn = rotation_about(1, side * rng.uniform(0.4, 0.9))
            flap = depth * 0.45
            centre = (side * (width / 2 + flap * 0.35), 0, height + flap * 0.25)
            assembly.box(material, centre, (0.012, depth, flap), rotation=turn)
    elif style == "stack":
        shrink = rng.uniform(0.6, 0.95)
        turn = rotation_about(2, rng.uniform(-0.3, 0.3) if shrink < 0.8 else 0.0)
        above = height * rng.uniform(0.6, 1.0)
        size = (width * shrink, depth * shrink, above)
        assembly.box(palette.material(), (0, 0, height + above / 2), size, rotation=turn)
