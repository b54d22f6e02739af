"""Views of an image: decoded once, cut and resized to bytes by the workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from harness.images import UnreadableImage
from harness.seeding import numpy_generator
from pretrain.crops import Box, MultiCrop
from pretrain.sources.base import Source

REPLACEMENTS = 10
"""Images tried in the place of one that cannot be read."""


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
                image = self._open(number)
                break
            except UnreadableImage as error:
                unreadable.append(str(error))
                number = int(generator.integers(len(self.source)))
        else:
            number, image = -1, Image.new("RGB", (32, 32), (128, 128, 128))
        boxes = self.crops.sample(image.height, image.width, generator)
        return {
            "global": torch.from_numpy(cut(image, boxes[:2], self.crops.global_size)),
            "local": torch.from_numpy(cut(image, boxes[2:], self.crops.local_size)),
            "index": number,
            "unreadable": unreadable,
        }

    def _open(self, number: int) -> Image.Image:
        image = self.source.open(number)
        if isinstance(image, np.ndarray):
            image = Image.fromarray(image)
        return image


def cut(image: Image.Image, boxes: Sequence[Box], size: int) -> np.ndarray:
    """Cut boxes out of an image and resize them (bilinear, antialiased).

    Args:
        image: RGB.
        boxes: inside the image.
        size: height and width of the result, in pixels.

    Returns:
        uint8 ``[len(boxes), 3, size, size]``.
    """
    views = np.empty((len(boxes), 3, size, size), dtype=np.uint8)
    for view, box in zip(views, boxes, strict=True):
        corners = (box.left, box.top, box.left + box.width, box.top + box.height)
        resized = image.resize((size, size), Image.Resampling.BILINEAR, box=corners)
        view[:] = np.asarray(resized).transpose(2, 0, 1)
    return views


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
