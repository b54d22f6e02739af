"""Framed pictures."""

from __future__ import annotations

from scenes.assembly import OBJECTS


@OBJECTS.register("picture")
def picture(assembly, rng, palette) -> None:
    """A canvas with or without mount, in a frame; hangs on a wall at its back, origin at its middle."""
    frame, canvas, mount = palette.material(), palette.material(), palette.material()
    width, height = rng.uniform(0.35, 1.1), rng.uniform(0.35, 0.8)
    bar = rng.uniform(0.02, 0.06)
    mounted = rng.random() < 0.5
    assembly.box(mount if mounted else canvas, (0, -0.008, 0), (width - bar, 0.016, height - bar))
    if mounted:
        inner = rng.uniform(0.5, 0.7)
        assembly.box(canvas, (0, -0.01, 0), (width * inner, 0.022, height * inner))
    for side in (-1, 1):
        assembly.box(frame, (side * (width - bar) / 2, -0.02, 0), (bar, 0.04, height))
        assembly.box(frame, (0, -0.02, side * (height - bar) / 2), (width - 2 * bar, 0.04, bar))
    for sx in (-1, 1):
        for sz in (-1, 1):
            assembly.keypoints.append(("picture_corner", (sx * width / 2, -0.04, sz * height / 2)))
