"""What the sets of PASCAL VOC share."""

from __future__ import annotations

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
"""Objects, in the published order."""


def candidates(year: int) -> tuple[str, ...]:
    """Where the folder of a year may be below what the user gave."""
    return f"VOCdevkit/VOC{year}/ImageSets", f"VOC{year}/ImageSets", "ImageSets"
