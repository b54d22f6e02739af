"""Which objects a scene type holds: for each, how likely there are 0, 1, 2, ... of them."""

from __future__ import annotations

RECIPES: dict[str, dict[str, tuple[float, ...]]] = {
    "bedroom": {
        "bed": (0.05, 0.75, 0.2), "sofa": (0.85, 0.15), "cabinet": (0.2, 0.5, 0.3), "shelf": (0.6, 0.4),
        "desk": (0.65, 0.35), "table": (0.9, 0.1), "chair": (0.6, 0.4), "lamp": (0.4, 0.5, 0.1),
        "plant": (0.6, 0.3, 0.1), "box": (0.65, 0.25, 0.1), "ball": (0.75, 0.2, 0.05),
    },
    "living_room": {
        "sofa": (0.05, 0.5, 0.45), "low_table": (0.25, 0.75), "table": (0.8, 0.2), "cabinet": (0.4, 0.5, 0.1),
        "shelf": (0.4, 0.5, 0.1), "chair": (0.6, 0.3, 0.1), "lamp": (0.3, 0.6, 0.1),
        "plant": (0.35, 0.45, 0.2), "bed": (0.95, 0.05), "box": (0.75, 0.2, 0.05), "ball": (0.75, 0.2, 0.05),
    },
    "dining_room": {
        "table": (0.05, 0.95), "cabinet": (0.35, 0.5, 0.15), "shelf": (0.7, 0.3), "sofa": (0.85, 0.15),
        "chair": (0.7, 0.3), "lamp": (0.6, 0.4), "plant": (0.5, 0.35, 0.15), "box": (0.8, 0.2),
        "ball": (0.85, 0.15),
    },
    "office": {
        "desk": (0.05, 0.55, 0.4), "shelf": (0.25, 0.5, 0.25), "cabinet": (0.35, 0.5, 0.15),
        "table": (0.8, 0.2), "sofa": (0.85, 0.15), "chair": (0.6, 0.3, 0.1), "lamp": (0.5, 0.5),
        "plant": (0.45, 0.4, 0.15), "box": (0.5, 0.3, 0.2), "ball": (0.9, 0.1),
    },
    "storage_room": {
        "shelf": (0.15, 0.4, 0.3, 0.15), "cabinet": (0.35, 0.4, 0.25),
        "box": (0.0, 0.1, 0.2, 0.3, 0.25, 0.15),
        "chair": (0.55, 0.3, 0.15), "desk": (0.8, 0.2), "table": (0.85, 0.15), "lamp": (0.7, 0.3),
        "plant": (0.85, 0.15), "bed": (0.93, 0.07), "sofa": (0.93, 0.07), "ball": (0.7, 0.2, 0.1),
    },
    "playroom": {
        "ball": (0.02, 0.18, 0.3, 0.3, 0.2), "box": (0.2, 0.3, 0.3, 0.2), "shelf": (0.4, 0.45, 0.15),
        "low_table": (0.4, 0.6), "cabinet": (0.5, 0.4, 0.1), "bed": (0.75, 0.25), "sofa": (0.75, 0.25),
        "chair": (0.4, 0.4, 0.2), "lamp": (0.65, 0.35), "plant": (0.65, 0.35),
    },
}

ORDER = ("bed", "sofa", "desk", "table", "low_table", "shelf", "cabinet", "plant", "lamp", "chair",
         "box", "ball")
"""Large things first, so that small ones fill the gaps."""

AT_WALL = frozenset({"bed", "sofa", "desk", "shelf", "cabinet"})
"""What stands with its back to a wall (sofas and beds mostly)."""

ON_SURFACES = ("lamp", "plant", "box", "ball")
"""What may also stand, small, on tables and low cabinets."""
