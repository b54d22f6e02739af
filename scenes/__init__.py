"""The built-in data set: procedural indoor rooms with exact labels, ray-cast from a seed alone.

Segmentation classes (``SEMSEG_CLASSES``): wall, floor, ceiling, window, picture, table, chair, sofa,
bed, cabinet, shelf, lamp, plant, box, ball. Object parts (``PART_CLASSES``): background, support, seat,
back, arm, top, shade. Scene types (``SCENE_TYPES``): bedroom, living room, dining room, office, storage
room, playroom. ``ATTRIBUTES`` and ``KEYPOINTS``: see :mod:`scenes.classes`. All classes draw their
colours and textures from the same palettes; only shape and context tell them apart.
"""

from scenes.camera import Camera
from scenes.classes import ATTRIBUTES, KEYPOINTS, PART_CLASSES, SCENE_TYPES, SEMSEG_CLASSES
from scenes.dataset import Scenes
from scenes.rendering import render
from scenes.rooms import RENDERER_VERSION, generate
from scenes.scene import Scene

__all__ = [
    "ATTRIBUTES", "KEYPOINTS", "PART_CLASSES", "RENDERER_VERSION", "SCENE_TYPES", "SEMSEG_CLASSES",
    "Camera", "Scene", "Scenes", "generate", "render",
]
