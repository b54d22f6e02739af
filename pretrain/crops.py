"""Multi-crop: where the views of an image are cut.

Source: Vandenhende (2022), sections 7.3.2 (limited IoU) and 7.4.1 (constrained multi-crop); the boxes
are random resized crops (Szegedy et al. 2015) as torchvision draws them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from harness.errors import UserError

ATTEMPTS = 10
"""Draws of a box that has to fit the image, and of a local crop that has to overlap the key."""
PAIR_ATTEMPTS = 500
"""Draws of a (positive, key) pair that has to stay under ``max_iou``."""


class Box(NamedTuple):
    """A rectangle of whole pixels inside an image."""

    top: int
    left: int
    height: int
    width: int

    @property
    def area(self) -> int:
        """Pixels."""
        return self.height * self.width

    def intersection(self, other: Box) -> int:
        """Pixels that both boxes cover."""
        height = min(self.top + self.height, other.top + other.height) - max(self.top, other.top)
        width = min(self.left + self.width, other.left + other.width) - max(self.left, other.left)
        return max(0, height) * max(0, width)

    def iou(self, other: Box) -> float:
        """Intersection over union, in [0, 1]."""
        shared = self.intersection(other)
        return shared / (self.area + other.area - shared)


class MultiCrop:
    """Draws the boxes of one image's views: positive, key, then the local crops.

    A local crop is drawn up to 10 times until at least ``min_overlap`` of its area lies inside the key
    crop; if none does, one unconstrained draw is taken. With ``max_iou`` the pair (positive, key) is drawn
    up to 500 times until its intersection over union is at most that; if none is, the pair of the lowest
    IoU seen is taken.

    Args:
        global_size: output height and width of the positive and the key view, in pixels.
        local_size: output height and width of the local views, in pixels.
        local_crops: number of local views; 0 is the ordinary two-crop transform.
        global_scale: smallest and largest share of the image's area in a global crop.
        local_scale: the same for a local crop.
        min_overlap: share of a local crop that must lie inside the key crop, 0 to 1 (1: fully inside);
            0 or none: unconstrained.
        max_iou: largest intersection over union of the positive and the key crop; none: not limited.
        ratio: smallest and largest aspect ratio (width over height).

    Raises:
        UserError: a size, count, scale, ratio or threshold that makes no sense.
    """

    def __init__(
        self,
        global_size: int = 160,
        local_size: int = 96,
        local_crops: int = 4,
        global_scale: tuple[float, float] = (0.2, 1.0),
        local_scale: tuple[float, float] = (0.05, 0.14),
        min_overlap: float | None = 0.1,
        max_iou: float | None = None,
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
    ) -> None:
        for name, value, least in (
            ("global_size", global_size, 1), ("local_size", local_size, 1), ("local_crops", local_crops, 0)
        ):
            if value < least:
                raise UserError(f"{name} is {value}: set it to {least} or more")
        for name, (low, high), top in (
            ("global_scale", global_scale, 1.0), ("local_scale", local_scale, 1.0), ("ratio", ratio, math.inf)
        ):
            if not 0 < low <= high <= top:
                limits = "0 < low <= high" + (" <= 1" if top == 1.0 else "")
                raise UserError(f"{name} is ({low}, {high}): set two numbers with {limits}")
        for name, value in (("min_overlap", min_overlap), ("max_iou", max_iou)):
            if value is not None and not 0 <= value <= 1:
                raise UserError(f"{name} is {value}: set it between 0 and 1")
        self.global_size = global_size
        self.local_size = local_size
        self.local_crops = local_crops
        self.global_scale = (float(global_scale[0]), float(global_scale[1]))
        self.local_scale = (float(local_scale[0]), float(local_scale[1]))
        self.min_overlap = min_overlap or 0.0
        self.max_iou = max_iou
        self.ratio = (float(ratio[0]), float(ratio[1]))

    def sample(self, height: int, width: int, generator: np.random.Generator) -> list[Box]:
        """Boxes for one image.

        Args:
            height: of the image, in pixels.
            width: of the image, in pixels.
            generator: source of randomness.

        Returns:
            ``2 + local_crops`` boxes: positive, key, locals; each lies inside the image.
        """
        positive, key = self._pair(height, width, generator)
        boxes = [positive, key]
        for _ in range(self.local_crops):
            boxes.append(self._local(height, width, key, generator))
        return boxes

    def _pair(self, height: int, width: int, generator: np.random.Generator) -> tuple[Box, Box]:
        best, lowest = None, math.inf
        for _ in range(PAIR_ATTEMPTS):
            pair = tuple(
                random_resized_crop(height, width, self.global_scale, self.ratio, generator) for _ in range(2)
            )
            if self.max_iou is None:
                return pair
            iou = pair[0].iou(pair[1])
            if iou < lowest:
                best, lowest = pair, iou
            if iou <= self.max_iou:
                break
        return best

    def _local(self, height: int, width: int, key: Box, generator: np.random.Generator) -> Box:
        if self.min_overlap:
            for _ in range(ATTEMPTS):
                box = random_resized_crop(height, width, self.local_scale, self.ratio, generator)
                if box.intersection(key) >= self.min_overlap * box.area:
                    return box
        return random_resized_crop(height, width, self.local_scale, self.ratio, generator)


def random_resized_crop(
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    generator: np.random.Generator,
) -> Box:
    """One box with area uniform in ``scale`` and aspect ratio log-uniform in ``ratio``.

    After 10 draws that do not fit, the central box of the largest size whose ratio is allowed (an image
    of one pixel, or a very long one).

    Args:
        height: of the image, in pixels.
        width: of the image, in pixels.
        scale: smallest and largest share of the image's area.
        ratio: smallest and largest width over height.
        generator: source of randomness.

    Returns:
        A box of at least one pixel, inside the image.
    """
    # Scalars beat arrays here: nearly every first draw fits, and an array operation costs a microsecond.
    uniform = generator.random
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(ATTEMPTS):
        area = height * width * (scale[0] + uniform() * (scale[1] - scale[0]))
        aspect = math.exp(low + uniform() * (high - low))
        box_width, box_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            top = int(uniform() * (height - box_height + 1))
            left = int(uniform() * (width - box_width + 1))
            return Box(top, left, box_height, box_width)
    box_height, box_width = height, width
    if width < height * ratio[0]:
        box_height = min(height, max(1, round(width / ratio[0])))
    elif width > height * ratio[1]:
        box_width = min(width, max(1, round(height * ratio[1])))
    return Box((height - box_height) // 2, (width - box_width) // 2, box_height, box_width)
