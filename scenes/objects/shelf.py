"""Open shelves."""

from __future__ import annotations

from scenes.assembly import OBJECTS


@OBJECTS.register("shelf")
def shelf(assembly, rng, palette) -> None:
    """Boards between two sides, mostly filled with rows of books and single pieces."""
    frame = palette.material()
    goods = [palette.material() for _ in range(3)]
    width, depth = rng.uniform(0.6, 1.3), rng.uniform(0.26, 0.4)
    boards = int(rng.integers(3, 6))
    height = boards * rng.uniform(0.3, 0.4) + 0.1
    board = rng.uniform(0.02, 0.04)
    for side in (-1, 1):
        centre = (side * (width / 2 - board / 2), 0, height / 2)
        assembly.box(frame, centre, (board, depth, height))
    if rng.random() < 0.7:
        tall = height - board - 0.002
        assembly.box(frame, (0, depth / 2 - 0.009, tall / 2), (width - 2 * board, 0.02, tall))
    step = (height - 0.08 - board) / (boards - 1)
    for index in range(boards):
        z = 0.08 + index * step
        assembly.box(frame, (0, 0, z + board / 2), (width - 2 * board, depth, board))
        if index == boards - 1:
            break
        room = width - 2 * board - 0.04
        left = -room / 2
        while left < room / 2 - 0.06 and rng.random() < 0.8:
            wide = min(rng.uniform(0.06, 0.45), room / 2 - left)
            tall = rng.uniform(0.45, 0.85) * (step - board)
            deep = rng.uniform(0.5, 0.85) * depth
            centre = (left + wide / 2, 0.02, z + board + tall / 2)
            material = goods[int(rng.integers(3))]
            if rng.random() < 0.2:
                wide = min(wide, deep)
                assembly.cylinder(material, centre, (wide, wide, tall), taper=rng.uniform(0.6, 1.0))
            else:
                assembly.box(material, centre, (wide, deep, tall))
            left += wide + rng.uniform(0.02, 0.2)
    assembly.corners("shelf_corner", (0, 0, height / 2), (width, depth, height))
    if height < 1.3:
        assembly.surface(0, 0, 0.08 + (boards - 1) * step + board, width * 0.8, depth * 0.8)
