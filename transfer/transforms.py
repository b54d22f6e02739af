"""Geometric augmentation that treats images and labels alike, with one resampling of each array.

A :class:`Geometry` is one draw: flip, rotation, zoom and crop, composed into a single affine map.
:meth:`Geometry.image` resamples pictures, :meth:`Geometry.label` label maps by their nearest pixel;
what a transformation does to label *values* (depth, directions) is each task's own rule
(:meth:`transfer.tasks.base.Task.apply`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from PIL import Image, ImageEnhance

from harness.errors import UserError

Size = int | tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """One geometric transformation of one sample.

    The source is mirrored (``flip``), turned by ``angle`` and enlarged by ``zoom`` about its centre,
    stretched to the output's shape if ``stretch``, and cut at ``top``, ``left`` of the result. What
    lies outside the source is filled.

    Args:
        height: rows of the source.
        width: columns of the source.
        out_height: rows of the result.
        out_width: columns of the result.
        flip: mirror left and right, first of all.
        zoom: enlargement.
        angle: rotation, degrees, counter-clockwise as seen.
        top: first row of the crop in the enlarged picture, pixels; negative beyond its edge.
        left: first column of the crop.
        stretch: bring the source to the output's shape, so that zoom 1 covers it exactly.
    """

    height: int
    width: int
    out_height: int
    out_width: int
    flip: bool = False
    zoom: float = 1.0
    angle: float = 0.0
    top: float = 0.0
    left: float = 0.0
    stretch: bool = False

    @property
    def scale(self) -> tuple[float, float]:
        """Output pixels per source pixel, vertically and horizontally."""
        if not self.stretch:
            return self.zoom, self.zoom
        return self.zoom * self.out_height / self.height, self.zoom * self.out_width / self.width

    @cached_property
    def inverse(self) -> tuple[float, float, float, float, float, float]:
        """``(a, b, c, d, e, f)``: the point (x, y) of the result shows (ax + by + c, dx + ey + f).

        Coordinates are continuous: pixel i covers [i, i + 1) and its centre is i + 1/2.
        """
        scale_y, scale_x = self.scale
        cos, sin = math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))
        x0 = self.left - self.width * scale_x / 2
        y0 = self.top - self.height * scale_y / 2
        mirror = -1.0 if self.flip else 1.0
        # rows point down, so turning back a counter-clockwise rotation is (cos, −sin; sin, cos)
        a, b = mirror * cos / scale_x, -mirror * sin / scale_y
        d, e = sin / scale_x, cos / scale_y
        return a, b, a * x0 + b * y0 + self.width / 2, d, e, d * x0 + e * y0 + self.height / 2

    @property
    def is_identity(self) -> bool:
        """Whether the result is the source."""
        return self.inverse == (1, 0, 0, 0, 1, 0) and self._keeps_size

    @property
    def _keeps_size(self) -> bool:
        return (self.out_height, self.out_width) == (self.height, self.width)

    def image(self, image: np.ndarray, fill: Sequence[int] | None = None) -> np.ndarray:
        """Resample a picture bilinearly (with area weights where it shrinks and nothing is filled).

        Args:
            image: uint8 ``[height, width, C]``, 3 channels or 1.
            fill: colour of what lies outside; the picture's mean colour by default.

        Returns:
            uint8 ``[out_height, out_width, C]``.
        """
        self._check(image)
        if self.is_identity:
            return np.array(image)
        a, b, c, d, e, f = self.inverse
        box = self._box()
        if box is not None:
            whole = box == (0, 0, self.width, self.height) and self._keeps_size
            if not whole:
                image = _from_picture(_to_picture(image).resize(
                    (self.out_width, self.out_height), Image.Resampling.BILINEAR, box=box))
            return np.ascontiguousarray(image[:, ::-1] if self.flip else image)
        if fill is None:
            pixels = image[::4, ::4].reshape(-1, image.shape[2])  # a sample of them is enough
            fill = pixels.mean(0).round().astype(int)
        color = tuple(int(value) for value in fill)
        return _from_picture(_to_picture(image).transform(
            (self.out_width, self.out_height), Image.Transform.AFFINE, (a, b, c, d, e, f),
            resample=Image.Resampling.BILINEAR, fillcolor=color if len(color) > 1 else color[0]))

    def label(self, label: np.ndarray, fill: float) -> np.ndarray:
        """Resample a label map by the nearest pixel, so that no value is invented.

        Args:
            label: ``[height, width]`` or ``[height, width, C]``, of any type.
            fill: value outside the source: the task's "no label".

        Returns:
            A new array ``[out_height, out_width(, C)]`` of the same type.
        """
        self._check(label)
        if self.is_identity:
            return np.array(label)
        if self.angle == 0:
            (rows, row_outside), (columns, column_outside) = self._lines
            # two gathers along one axis each: far fewer indices than pixels
            result = label.take(rows, axis=0).take(columns, axis=1)
            if row_outside is not None:
                result[row_outside] = fill
            if column_outside is not None:
                result[:, column_outside] = fill
            return result
        index, outside = self._pixels
        flat = label.reshape(self.height * self.width, *label.shape[2:])
        result = flat.take(index, axis=0)
        if outside is not None:
            result[outside] = fill
        return result.reshape(self.out_height, self.out_width, *label.shape[2:])

    def _check(self, array: np.ndarray) -> None:
        if array.shape[:2] != (self.height, self.width):
            raise UserError(f"a label map of shape {array.shape[:2]} lies beside an image of shape "
                            f"{(self.height, self.width)}: training needs labels of the image's size")

    def _box(self) -> tuple[float, float, float, float] | None:
        """The rectangle of the source that is shown (before mirroring), if it is one and lies inside."""
        if self.angle != 0:
            return None
        a, _, c, _, e, f = self.inverse
        left, right = sorted((c, a * self.out_width + c))
        top, bottom = f, e * self.out_height + f
        tiny = 1e-6  # rounding may put an edge just outside
        if left < -tiny or top < -tiny or right > self.width + tiny or bottom > self.height + tiny:
            return None
        return max(left, 0), max(top, 0), min(right, self.width), min(bottom, self.height)

    @cached_property
    def _lines(self):
        """Source row of every row and source column of every column, and which lie outside."""
        a, _, c, _, e, f = self.inverse
        return (_nearest(e, f, self.out_height, self.height), _nearest(a, c, self.out_width, self.width))

    @cached_property
    def _pixels(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Flat source index of every pixel of the result, and which lie outside."""
        a, b, c, d, e, f = self.inverse
        u = np.arange(self.out_width) + 0.5
        v = (np.arange(self.out_height) + 0.5)[:, None]
        x = np.floor((a * u + c) + b * v).astype(np.intp)
        y = np.floor((d * u + f) + e * v).astype(np.intp)
        outside = (x < 0) | (x >= self.width) | (y < 0) | (y >= self.height)
        index = (y * self.width + x).ravel()
        if not outside.any():
            return index, None
        outside = outside.ravel()
        index[outside] = 0
        return index, outside


def _nearest(scale: float, offset: float, length: int, limit: int) -> tuple[np.ndarray, np.ndarray | None]:
    index = np.floor(scale * (np.arange(length) + 0.5) + offset).astype(np.intp)
    outside = (index < 0) | (index >= limit)
    return np.clip(index, 0, limit - 1), outside if outside.any() else None


class Augmentation:
    """Random geometry for image and labels, and optional colour jitter of the image.

    Args:
        flip: probability of mirroring left and right.
        zoom: enlargements to choose from, each as likely.
        scale: range of enlargements drawn uniformly, on top of ``zoom``.
        rotation: largest angle, degrees, to either side.
        size: side, or height and width, of the result; the image's own by default.
        position: where the crop is taken.
        fit: how an image of another size than ``size`` is met: by cropping (and padding), or by
            stretching it first, so that zoom 1 shows it whole.
        jitter: largest relative change of brightness, contrast and saturation.
    """

    def __init__(
        self,
        flip: float = 0.5,
        zoom: tuple[float, ...] = (1.0, 1.2, 1.5),
        scale: tuple[float, float] | None = None,
        rotation: float = 0.0,
        size: int | tuple[int, int] | None = None,
        position: Literal["random", "center"] = "random",
        fit: Literal["crop", "stretch"] = "crop",
        jitter: float = 0.0,
    ) -> None:
        if not zoom or min((*zoom, *(scale or ()))) <= 0 or (scale and scale[0] > scale[1]):
            raise UserError(f"augmentation: zoom {zoom} and scale {scale} must be positive and in order")
        if not 0 <= flip <= 1 or not 0 <= jitter < 1 or not 0 <= rotation <= 180:
            raise UserError("augmentation: flip must be in [0, 1], jitter in [0, 1), rotation in [0, 180]")
        if position not in ("random", "center") or fit not in ("crop", "stretch"):
            raise UserError(f"augmentation: position '{position}' must be random or center, and fit "
                            f"'{fit}' crop or stretch")
        self.flip, self.zoom, self.scale, self.rotation = flip, tuple(zoom), scale, rotation
        self.size = as_size(size, "augmentation")
        self.position, self.fit, self.jitter = position, fit, jitter

    def sample(self, height: int, width: int, generator: np.random.Generator) -> Geometry:
        """Draw a geometry for an image of ``height`` × ``width`` pixels."""
        out_height, out_width = self.size or (height, width)
        flip = bool(generator.random() < self.flip)
        zoom = float(self.zoom[int(generator.integers(len(self.zoom)))])
        if self.scale is not None:
            zoom *= float(generator.uniform(*self.scale))
        angle = float(generator.uniform(-self.rotation, self.rotation)) if self.rotation else 0.0
        stretch = self.fit == "stretch"
        base_height, base_width = (out_height, out_width) if stretch else (height, width)
        down, right = generator.random(2) if self.position == "random" else (0.5, 0.5)
        return Geometry(
            height, width, out_height, out_width, flip, zoom, angle,
            self._offset(base_height * zoom - out_height, down, zoom != 1),
            self._offset(base_width * zoom - out_width, right, zoom != 1),
            stretch,
        )

    def _offset(self, free: float, share: float, resampled: bool) -> float:
        """Start of the crop when ``free`` pixels are left over (negative: missing, to be filled)."""
        if self.position == "center" and resampled:
            return free * share  # the optical centre stays where it is
        # whole pixels keep an unscaled crop unblurred; truncation keeps it inside
        return float(math.trunc(free * share))

    def colors(self, image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Jitter brightness, contrast and saturation of a uint8 image ``[H, W, C]``; a grey one has no saturation."""
        if self.jitter == 0:
            return image
        picture = _to_picture(image)
        for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            picture = change(picture).enhance(1 + float(generator.uniform(-self.jitter, self.jitter)))
        return _from_picture(picture)

    def keeps(self, height: int, width: int) -> bool:
        """Whether images of this size and their labels always stay as they are."""
        own = type(self).sample is Augmentation.sample and type(self).colors is Augmentation.colors
        still = not self.flip and set(self.zoom) == {1.0} and self.scale in (None, (1, 1)) and not self.rotation
        return own and still and not self.jitter and self.size in (None, (height, width))


def as_size(size: Size | None, what: str) -> tuple[int, int] | None:
    """``(height, width)`` of a side length or a pair.

    Raises:
        UserError: not positive, or not two numbers.
    """
    if size is None:
        return None
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or min(pair) < 1:
        raise UserError(f"{what}: size {size} must be one positive number or two (height, width)")
    return int(pair[0]), int(pair[1])


def resize_image(image: np.ndarray, size: Size | None) -> np.ndarray:
    """A uint8 image ``[H, W, C]`` at another size, bilinear with area weights; for evaluation."""
    target = as_size(size, "evaluation")
    if target is None or target == image.shape[:2]:
        return np.array(image)
    return _from_picture(_to_picture(image).resize((target[1], target[0]), Image.Resampling.BILINEAR))


def _to_picture(image: np.ndarray) -> Image.Image:
    """A uint8 image ``[H, W, 3]`` or ``[H, W, 1]`` as Pillow has it."""
    return Image.fromarray(np.ascontiguousarray(image[:, :, 0] if image.shape[2] == 1 else image))


def _from_picture(picture: Image.Image) -> np.ndarray:
    array = np.array(picture)
    return array[:, :, None] if array.ndim == 2 else array
