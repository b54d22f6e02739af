"""The names behind the labels. Their order is the index that a label stores."""

from __future__ import annotations

SEMSEG_CLASSES = (
    "wall", "floor", "ceiling", "window", "picture", "table", "chair", "sofa", "bed", "cabinet", "shelf",
    "lamp", "plant", "box", "ball",
)
"""``semseg``. A rug is floor, a pillar is wall; whatever stands in a shelf is shelf."""

STUFF = ("wall", "floor", "ceiling")
"""Classes without instances."""

PART_CLASSES = ("background", "support", "seat", "back", "arm", "top", "shade")
"""``parts``: legs and stands; what one sits or lies on; back rests and headboards; arm rests; table
tops; lamp shades. Everything else is background."""

SCENE_TYPES = ("bedroom", "living_room", "dining_room", "office", "storage_room", "playroom")
"""``scene``. A type sets how likely objects are; nearly every object may stand in every type."""

ATTRIBUTES = (
    "several_lights", "window", "picture", "plant", "lamp", "rug", "seat", "round_table", "crowded",
    "ceiling_visible", "textured_walls", "textured_floor",
)
"""``attributes``: facts about what the picture shows, each independent of the others."""

KEYPOINTS = (
    "table_corner", "seat_corner", "bed_corner", "cabinet_corner", "shelf_corner", "box_corner",
    "window_corner", "picture_corner",
)
"""Kinds of points in the ``keypoints`` heat map (one map for all kinds)."""

IGNORED = 255
"""Index of unlabelled pixels. The renderer labels every pixel; transforms pad with it."""

SEMSEG_INDEX = {name: index for index, name in enumerate(SEMSEG_CLASSES)}
PART_INDEX = {name: index for index, name in enumerate(PART_CLASSES)}
