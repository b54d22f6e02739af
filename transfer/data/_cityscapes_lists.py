"""Classes of Cityscapes at three levels (Liu 2018, table 3.1)."""

from __future__ import annotations

CLASSES_19 = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)
CLASSES_7 = ("flat", "construction", "object", "nature", "sky", "human", "vehicle")
CLASSES_2 = ("background", "foreground")
CLASSES = {19: CLASSES_19, 7: CLASSES_7, 2: CLASSES_2}

STORED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""Number of each of the 19 classes in the official label images; all others are not evaluated."""

SEVEN_OF_19 = (0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 5, 6, 6, 6, 6, 6, 6)
TWO_OF_7 = (0, 0, 0, 0, 0, 1, 1)


def coarser(fine: int, coarse: int) -> tuple[int, ...]:
    """The coarse class of each fine one, among 19, 7 and 2 classes."""
    found = tuple(range(fine))
    if fine == 19 and coarse < 19:
        found = SEVEN_OF_19
    if coarse == 2 and fine > 2:
        found = tuple(TWO_OF_7[index] for index in found)
    return found
