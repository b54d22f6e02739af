"""Windows."""

from __future__ import annotations

from scenes.assembly import OBJECTS


@OBJECTS.register("window")
def window(assembly, rng, palette) -> None:
    """Panes behind a frame with bars and a sill; hangs on a wall at its back, origin at its middle."""
    frame = palette.material()
    pane = palette.material(emission=rng.uniform(0.0, 1.5))
    width, height = rng.uniform(0.8, 1.7), rng.uniform(0.8, 1.3)
    bar = rng.uniform(0.05, 0.08)
    assembly.box(pane, (0, -0.01, 0), (width - bar, 0.02, height - bar))
    for side in (-1, 1):
        assembly.box(frame, (side * (width - bar) / 2, -0.03, 0), (bar, 0.06, height))
        assembly.box(frame, (0, -0.03, side * (height - bar) / 2), (width - 2 * bar, 0.06, bar))
    columns = 1 + (width > 1.0) + (rng.random() < 0.3)
    for index in range(1, columns):
        x = (index / columns - 0.5) * (width - bar)
        assembly.box(frame, (x, -0.02, 0), (bar * 0.6, 0.04, height - 2 * bar))
    if rng.random() < 0.7:
        z = rng.choice([0.0, 0.2]) * height
        assembly.box(frame, (0, -0.018, z), (width - 2 * bar, 0.036, bar * 0.6))
    if rng.random() < 0.6:
        assembly.box(frame, (0, -0.08, -height / 2 - 0.02), (width + 0.1, 0.16, 0.04))
    for sx in (-1, 1):
        for sz in (-1, 1):
            assembly.keypoints.append(("window_corner", (sx * width / 2, -0.06, sz * height / 2)))
    assembly.bulb = (0, -0.3, 0)
