"""Floor lamps, table lamps and pendants."""

from __future__ import annotations

from scenes.assembly import OBJECTS


@OBJECTS.register("lamp")
def lamp(assembly, rng, palette, small: bool = False, hanging: float = 0.0, lit: bool = False) -> None:
    """A shade on a stand; with ``hanging`` (metres of cord plus shade) one that hangs from z = 0."""
    stand = palette.material()
    shade = palette.material(emission=rng.uniform(0.4, 1.2) if lit else 0.0)
    wide = rng.uniform(0.2, 0.32) if small else rng.uniform(0.3, 0.5)
    tall = wide * rng.uniform(0.5, 0.9)
    taper = rng.uniform(0.35, 1.0)
    if hanging:
        cord = max(hanging - tall, 0.05)
        assembly.cylinder(stand, (0, 0, -cord / 2), (0.02, 0.02, cord), "support")
        middle = -cord - tall / 2
    else:
        height = rng.uniform(0.35, 0.6) if small else rng.uniform(1.3, 1.75)
        foot = rng.uniform(0.6, 0.8) * wide
        pole = rng.uniform(0.02, 0.05)
        assembly.cylinder(stand, (0, 0, 0.015), (foot, foot, 0.03), "support", 0.8)
        assembly.cylinder(stand, (0, 0, (height - tall) / 2), (pole, pole, height - tall), "support")
        if small and rng.random() < 0.5:
            belly = height - tall
            assembly.ellipsoid(stand, (0, 0, belly * 0.45), (foot * 0.8, foot * 0.8, belly * 0.8), "support")
        middle = height - tall / 2
    if rng.random() < 0.3:
        assembly.ellipsoid(shade, (0, 0, middle), (wide * 0.85, wide * 0.85, tall), "shade")
    else:
        assembly.cylinder(shade, (0, 0, middle), (wide, wide, tall), "shade", taper)
    assembly.bulb = (0, 0, middle)
