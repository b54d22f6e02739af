"""Views of an image: decoded once, cut and resized to bytes by the workers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional
from torch.utils.data import Dataset

from harness.images import UnreadableImage
from harness.pictures import REDUCTIONS, Picture, read_picture
from harness.seeding import numpy_generator
from pretrain.crops import Box, MultiCrop
from pretrain.sources.base import Source

REPLACEMENTS = 10
"""Images tried in the place of one that cannot be read."""
SPARE = 2
"""A JPEG is decoded at a reduced scale only if at least so many of its pixels, each way, make one of every view."""


class Views(Dataset):
    """The views of every image of a source, by (epoch, number).

    What is cut depends on the seed, the epoch and the number alone, not on workers or processes.

    Args:
        source: of images.
        crops: draws the boxes.
        seed: of the run.
    """

    def __init__(self, source: Source, crops: MultiCrop, seed: int = 0) -> None:
        self.source = source
        self.crops = crops
        self.seed = seed

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: tuple[int, int]) -> dict[str, Any]:
        """Views of one image.

        An image that cannot be read is replaced by another one, drawn from the same stream; after ten
        unreadable ones in a row the views are grey and ``index`` is -1.

        Args:
            index: (epoch, number of the image).

        Returns:
            ``global`` uint8 ``[2, 3, G, G]`` (positive, key), ``local`` uint8 ``[V, 3, L, L]``, ``index``
            (number of the image that was read) and ``unreadable``, a list of ``"name: reason"``, empty as a
            rule.
        """
        epoch, number = index
        generator = numpy_generator(self.seed, "views", epoch, number)
        unreadable: list[str] = []
        for _ in range(1 + REPLACEMENTS):
            try:
                views = self._cut(self._picture(number), generator)
                break
            except UnreadableImage as error:
                unreadable.append(str(error))
                number = int(generator.integers(len(self.source)))
        else:
            number, views = -1, self._cut(Picture(np.full((32, 32, 3), 128, np.uint8)), generator)
        return {**views, "index": number, "unreadable": unreadable}

    def _picture(self, number: int) -> Picture:
        stored = self.source.encoded(number)
        if stored is not None:
            return read_picture(stored, self.source.name(number))
        return Picture(np.asarray(self.source.open(number)))

    def _cut(self, picture: Picture, generator: np.random.Generator) -> dict[str, Any]:
        crops = self.crops
        boxes = crops.sample(picture.height, picture.width, generator)
        reduction = largest_reduction(boxes, [crops.global_size] * 2 + [crops.local_size] * crops.local_crops)
        pixels = picture.decode(reduction)
        if pixels.shape[0] == picture.height:
            reduction = 1
        return {"global": torch.from_numpy(cut(pixels, boxes[:2], crops.global_size, reduction)),
                "local": torch.from_numpy(cut(pixels, boxes[2:], crops.local_size, reduction))}


def cut(image: np.ndarray | Image.Image, boxes: Sequence[Box], size: int, reduction: int = 1) -> np.ndarray:
    """Cut boxes out of an image and resize them (bilinear, antialiased).

    What lies outside a box does not count. Torch's resize of bytes gives what Pillow's gives within one step
    of 255, several times faster where the processor has AVX2.

    Args:
        image: uint8 ``[height, width, 3]``, or a Pillow image in mode RGB.
        boxes: inside the image, in pixels of its full scale.
        size: height and width of the result, in pixels.
        reduction: the scale that the image was decoded at; its full scale is so many times larger.

    Returns:
        uint8 ``[len(boxes), 3, size, size]``.
    """
    pixels = np.asarray(image)
    resize = _resize if reduction == 1 else partial(_resize_reduced, reduction=reduction)
    views = np.empty((len(boxes), 3, size, size), dtype=np.uint8)
    for view, box in zip(views, boxes, strict=True):
        view[:] = resize(pixels, box, size)
    return views


def _resize(pixels: np.ndarray, box: Box, size: int) -> np.ndarray:
    part = pixels[box.top : box.top + box.height, box.left : box.left + box.width]
    part = torch.from_numpy(part.copy()).permute(2, 0, 1)[None]
    return functional.interpolate(part, (size, size), mode="bilinear", antialias=True)[0].numpy()


def _resize_reduced(pixels: np.ndarray, box: Box, size: int, reduction: int) -> np.ndarray:
    """Pillow's resize takes edges that lie between pixels; torch's does not."""
    left, top = box.left // reduction, box.top // reduction
    right, bottom = -(-(box.left + box.width) // reduction), -(-(box.top + box.height) // reduction)
    edges = (box.left / reduction - left, box.top / reduction - top,
             (box.left + box.width) / reduction - left, (box.top + box.height) / reduction - top)
    part = Image.fromarray(np.ascontiguousarray(pixels[top:bottom, left:right]))
    return np.asarray(part.resize((size, size), Image.Resampling.BILINEAR, box=edges)).transpose(2, 0, 1)


def largest_reduction(boxes: Sequence[Box], sizes: Sequence[int]) -> int:
    """How much smaller an image may be decoded so that no view of it loses anything by that.

    Every pixel of every view then still is the mean over at least :data:`SPARE` reduced pixels each way.

    Args:
        boxes: of the views.
        sizes: height and width of each view, in pixels.

    Returns:
        1, or one of :data:`harness.pictures.REDUCTIONS`.
    """
    spare = min(min(box.height, box.width) / size for box, size in zip(boxes, sizes, strict=True))
    return next((reduction for reduction in REDUCTIONS if spare >= SPARE * reduction), 1)


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A batch of :class:`Views`.

    Args:
        samples: of one batch, at least one.

    Returns:
        ``global`` uint8 ``[B, 2, 3, G, G]``, ``local`` uint8 ``[B, V, 3, L, L]``, ``index`` int64 ``[B]``,
        ``unreadable``: the list of all unreadable images met.
    """
    return {
        "global": torch.stack([sample["global"] for sample in samples]),
        "local": torch.stack([sample["local"] for sample in samples]),
        "index": torch.tensor([sample["index"] for sample in samples]),
        "unreadable": [entry for sample in samples for entry in sample["unreadable"]],
    }
