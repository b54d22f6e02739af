"""What a network says of the places of images that have masks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from harness.errors import UserError
from harness.progress import progress
from pretrain.evaluation.features import Features, attempt, middle
from pretrain.evaluation.labelled import IGNORED, LabelledImages


@dataclass(frozen=True)
class Seen:
    """An image with its mask and a network's map of it.

    Attributes:
        number: of the image in its split.
        pixels: uint8 ``[H, W, 3]``, as it is in the data.
        mask: uint8 ``[H, W]``.
        features: float32 ``[C, h, w]``, on the network's device.
    """

    number: int
    pixels: np.ndarray
    mask: np.ndarray
    features: Tensor


class DenseFeatures:
    """Maps of one stage of a backbone for whole images.

    Args:
        features: of the backbone.
        layer: the stage: its module's name, or its place counted from the end.
        resize: side that an image's shorter side is brought to for the network; 0 leaves it.
        output_stride: pixels between two places of the last stage, by dilation; None: as the network is.
        batch_size: images of one size at once.

    Raises:
        UserError: the network gives no maps, has no such layer, or cannot be dilated.
    """

    def __init__(self, features: Features, layer: str = "-1", resize: int = 0, output_stride: int | None = None,
                 batch_size: int = 16) -> None:
        self.source, self.resize, self.batch_size = features, resize, batch_size
        if output_stride is None:
            self.model = features.model
        else:
            self.model = features.subject.build(output_stride=output_stride).to(features.device)
        self.place = features.place(self.model, layer)

    def __call__(self, images: LabelledImages, classes: int) -> Iterator[Seen]:
        """Go through a split.

        Args:
            images: the split.
            classes: how many classes its masks have.

        Raises:
            UserError: there is no image, one cannot be read, its mask does not fit it, or its map is not finite.
        """
        if not len(images):
            raise UserError("a split has no images: choose another, or put images into it")
        loader = DataLoader(_Masked(images, classes, self.resize), batch_size=self.batch_size,
                            num_workers=self.source.workers, collate_fn=_as_they_are)
        with progress(len(images), description=f"places of {self.source.subject.label}", leave=False,
                      delay=1) as bar:
            for batch in loader:
                for maps, (number, pixels, mask, _) in zip(self._maps(batch), batch, strict=True):
                    if not maps.isfinite().all():
                        raise UserError(f"{self.source.subject.label}: its map of {images.name(number)} is not finite: "
                                        "the weights are damaged; get the checkpoint again")
                    yield Seen(number, pixels, mask, maps)
                bar.update(len(batch))

    @torch.no_grad()
    def _maps(self, batch: list[Any]) -> list[Tensor]:
        sizes: dict[tuple[int, ...], list[int]] = {}
        for place, item in enumerate(batch):
            if isinstance(item, Exception):
                raise item
            sizes.setdefault(item[3].shape, []).append(place)
        found: list[Tensor] = [torch.empty(0)] * len(batch)
        for places in sizes.values():
            pixels = self.source.normalise(np.stack([batch[place][3] for place in places]))
            for place, maps in zip(places, self.source.maps(self.model, pixels, self.place), strict=True):
                found[place] = maps
        return found


class _Masked(Dataset):
    """(number, image, mask, image for the network); or what is wrong, so that workers need not raise it."""

    def __init__(self, images: LabelledImages, classes: int, resize: int) -> None:
        self.images, self.classes, self.resize = images, classes, resize

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> tuple[int, np.ndarray, np.ndarray, np.ndarray] | UserError:
        read = attempt(lambda: (self.images.image(number), self.images.mask(number)))
        if isinstance(read, UserError):
            return read
        pixels, mask = read
        if mask.shape != pixels.shape[:2]:
            return UserError(f"{self.images.name(number)}: its mask is {' × '.join(map(str, mask.shape))} pixels and "
                             f"the image {' × '.join(map(str, pixels.shape[:2]))}: get the files again")
        highest = int(mask.max(where=mask != IGNORED, initial=0))
        if highest >= self.classes:
            return UserError(f"{self.images.name(number)}: its mask has class {highest}, and there are 0 to "
                             f"{self.classes - 1}: get the file again")
        return number, pixels, mask, middle(pixels, self.resize, None)


def _as_they_are(items: list[Any]) -> list[Any]:
    return items


def check_dense_options(protocol: str, resize: int, output_stride: int | None, batch_size: int) -> None:
    """Refuse options of :class:`DenseFeatures` that make no sense.

    Raises:
        UserError: one of them.
    """
    for name, value, least in (("resize", resize, 0), ("output_stride", output_stride, 1),
                               ("batch_size", batch_size, 1)):
        if value is not None and value < least:
            raise UserError(f"{protocol}.{name} is {value}: set it to {least} or more")
