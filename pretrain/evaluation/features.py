"""Frozen features: of whole images, computed once and kept by content, and of places in an image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision.transforms import functional as vision

from harness.config import digest, volatile
from harness.errors import UserError, closest
from harness.files import cache_folder
from harness.images import UnreadableImage
from harness.progress import progress
from pretrain.evaluation.feature_file import kept_features
from pretrain.evaluation.labelled import LabelledImages
from pretrain.evaluation.subject import Subject
from pretrain.formats.base import CheckpointError

POOL = "pool"
T = TypeVar("T")
_ANY_SIZE = ({"dynamic_img_size": True, "dynamic_img_pad": True}, {"strict_img_size": False})
"""That images may be of any size, in the words of different networks of timm's; at their own size nothing changes."""
_REFUSALS = (AssertionError, AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError,
             ValueError)


@dataclass
class FeatureConfig:
    """Which features of whole images are read, and how.

    Args:
        layer: pool is the network's own pooled output; otherwise a stage, by its module's name (layer3) or its place
            counted from the end (-2), averaged over the image.
        resize: side that an image's shorter side is brought to; what is usual for the data when none, 0 leaves it.
        crop: side of the square in its middle that is seen; what is usual for the data when none, 0 takes all of it.
        batch_size: images at once.
        precision: of the network; bfloat16 and float16 are for GPUs.
        cache: keep features on the disk and use those that are there.
    """

    layer: str = POOL
    resize: int | None = None
    crop: int | None = None
    batch_size: int = volatile(64)
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    cache: bool = volatile(True)


class Features:
    """The features of one backbone.

    Args:
        subject: the backbone.
        config: which features.
        device: where they are computed.
        workers: processes that read images.
    """

    def __init__(self, subject: Subject, config: FeatureConfig, device: torch.device, workers: int = 0) -> None:
        for name in ("resize", "crop"):
            if (getattr(config, name) or 0) < 0:
                raise UserError(f"features.{name} is {getattr(config, name)}: set it to 0 (as it is) or more")
        if config.batch_size < 1:
            raise UserError(f"features.batch_size is {config.batch_size}: set it to 1 or more")
        self.subject, self.config, self.device, self.workers = subject, config, device, workers

    @cached_property
    def model(self) -> nn.Module:
        """The network without classifier, built when it is first needed; for images of any size if it can be had so."""
        model = self.subject.build()
        if hasattr(model, "patch_embed"):  # of a transformer, whose size is fixed unless it is asked not to be
            for options in _ANY_SIZE:
                with suppress(CheckpointError):
                    return self.subject.build(**options).to(self.device)
        return model.to(self.device)

    @cached_property
    def convention(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation that the network's images are normalised with, ``[3, 1, 1]``."""
        known = self.model.pretrained_cfg
        mean, std = (torch.tensor(known[key], device=self.device).view(3, 1, 1) for key in ("mean", "std"))
        return mean, std

    def normalise(self, images: np.ndarray | Tensor) -> Tensor:
        """Images as the network wants them.

        Args:
            images: uint8 ``[B, H, W, 3]``.

        Returns:
            float32 ``[B, 3, H, W]`` on the device.
        """
        mean, std = self.convention
        pixels = torch.as_tensor(images).to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        return (pixels.float() / 255 - mean) / std

    # -- whole images -------------------------------------------------------------------------------

    def pooled(self, images: LabelledImages, resize: int | None, crop: int | None) -> np.ndarray:
        """One vector for each image.

        Args:
            images: a split.
            resize: what is usual for its images, where the configuration says nothing.
            crop: the same.

        Returns:
            float32 ``[N, C]``, read-only; mapped from the disk where it is kept there.

        Raises:
            UserError: an image cannot be read, or the network has no such layer.
        """
        resize = resize if self.config.resize is None else self.config.resize
        crop = crop if self.config.crop is None else self.config.crop
        if not self.config.cache:
            return self._collect(images, resize, crop)
        key = digest([self.subject.digest, images.fingerprint(), self.config.layer, resize, crop,
                      self.config.precision, torch.__version__])
        path = cache_folder() / "features" / f"{self.subject.digest[:20]}-{key}.npy"
        return kept_features(path, len(images), lambda start: self._compute(images, resize, crop, start),
                             self.config.batch_size)

    def _collect(self, images: LabelledImages, resize: int | None, crop: int | None) -> np.ndarray:
        """All vectors in memory, read-only."""
        found, start = np.empty((0, 0), np.float32), 0
        for vectors in self._compute(images, resize, crop):
            if not start:
                found = np.empty((len(images), vectors.shape[1]), np.float32)
            found[start : start + len(vectors)] = vectors
            start += len(vectors)
        found.flags.writeable = False
        return found

    @torch.no_grad()
    def _compute(self, images: LabelledImages, resize: int | None, crop: int | None,
                 start: int = 0) -> Iterator[np.ndarray]:
        """Vectors of the images from a number on, ``[n, C]`` for each batch."""
        pooled = self._pooled_layer()
        rest = Subset(_Whole(images, resize, crop), range(start, len(images)))
        loader = DataLoader(rest, batch_size=self.config.batch_size, num_workers=self.workers, collate_fn=_same_size,
                            pin_memory=self.device.type == "cuda")
        precision = getattr(torch, self.config.precision)
        with progress(len(images), initial=start, description=f"features of {self.subject.label}", leave=False,
                      delay=1) as bar:
            for groups in loader:
                if isinstance(groups, UserError):
                    raise groups
                parts = []
                for _, batch in groups:
                    with torch.autocast(self.device.type, dtype=precision, enabled=precision != torch.float32):
                        parts.append(pooled(self.normalise(batch)).float().cpu().numpy())
                order = np.argsort(np.concatenate([places for places, _ in groups]))
                yield np.concatenate(parts)[order]
                bar.update(len(order))

    def _pooled_layer(self) -> Any:
        if self.config.layer == POOL:
            return self._pool
        place = self.place(self.model, self.config.layer)
        return lambda images: self.maps(self.model, images, place).mean((2, 3))

    def _pool(self, images: Tensor) -> Tensor:
        """The network's own pooled output.

        Raises:
            UserError: it does not take images of this size.
        """
        try:
            return self.model(images)
        except _REFUSALS as error:
            side = self.model.pretrained_cfg["input_size"][1]
            raise self._refusal("features", images, error,
                                f": set --features.resize and --features.crop to its own size, {side}") from error

    def _refusal(self, what: str, images: Tensor, error: Exception, advice: str = "") -> UserError:
        reason = " ".join(str(error).split())[:160].rstrip(" .") or type(error).__name__
        if isinstance(error, torch.OutOfMemoryError):
            advice = ": set a smaller batch_size"
        return UserError(f"{self.subject.label}: its network does not give {what} for {len(images)} images of "
                         f"{tuple(images.shape[2:])} pixels: {reason}{advice}")

    # -- places in an image -------------------------------------------------------------------------

    def stages(self, model: nn.Module) -> list[str]:
        """Names of the modules whose maps a network gives.

        Raises:
            UserError: it gives none.
        """
        info = getattr(model, "feature_info", None)
        names = [entry["module"] for entry in getattr(info, "info", info) or []]
        if not names or not hasattr(model, "forward_intermediates"):
            raise UserError(f"{self.subject.label}: {self.subject.architecture or 'its network'} gives no maps of its "
                            "stages: use protocols that take pooled features (--features.layer pool)")
        return names

    def place(self, model: nn.Module, layer: str | int) -> int:
        """Which of :meth:`stages` a name or a place counted from either end stands for.

        Raises:
            UserError: none.
        """
        names = self.stages(model)
        try:
            return range(len(names))[int(layer)]
        except (ValueError, IndexError):
            if layer in names:
                return names.index(layer)
        raise UserError(f"{self.subject.label} has no layer '{layer}'{closest(str(layer), names)}: it has "
                        f"{', '.join(names)}, or -1 to -{len(names)} from the end") from None

    @torch.no_grad()
    def maps(self, model: nn.Module, images: Tensor, place: int) -> Tensor:
        """The map of one stage.

        Args:
            model: :attr:`model`, or what :meth:`pretrain.evaluation.subject.Subject.build` gave.
            images: ``[B, 3, H, W]``, normalised.
            place: from :meth:`place`.

        Returns:
            float32 ``[B, C, h, w]``; a transformer's tokens lie as its patches do.

        Raises:
            UserError: the network does not take images of this size.
        """
        try:
            return model.forward_intermediates(images, indices=[place], intermediates_only=True,
                                               stop_early=True)[0].float()
        except _REFUSALS as error:
            raise self._refusal(f"stage {self.stages(model)[place]}", images, error) from error


class _Whole(Dataset):
    """Images as the network sees them whole: uint8 ``[H, W, 3]``."""

    def __init__(self, images: LabelledImages, resize: int | None, crop: int | None) -> None:
        self.images, self.resize, self.crop = images, resize, crop

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> np.ndarray | UserError:
        pixels = attempt(lambda: self.images.image(number))
        return pixels if isinstance(pixels, UserError) else middle(pixels, self.resize, self.crop)


def attempt(read: Callable[[], T]) -> T | UserError:
    """What a reading gives; or what is wrong, returned, since what a worker raises has its traceback in the message."""
    try:
        return read()
    except UnreadableImage as error:
        return UserError(error.told)
    except UserError as error:
        return error


def middle(pixels: np.ndarray, resize: int | None, crop: int | None) -> np.ndarray:
    """The square in the middle of an image whose shorter side was brought to a length.

    Args:
        pixels: uint8 ``[H, W, 3]``.
        resize: the length (bicubic, with antialiasing); falsy: as it is.
        crop: side of the square, at most the shorter side; falsy: the whole image.
    """
    if not resize and not crop:
        return pixels
    picture = Image.fromarray(pixels)
    if resize:
        picture = vision.resize(picture, resize, vision.InterpolationMode.BICUBIC)
    if crop:
        width, height = picture.size
        picture = vision.center_crop(picture, (min(crop, height), min(crop, width)))
    return np.asarray(picture)


def _same_size(images: Sequence[np.ndarray | UserError]) -> list[tuple[list[int], Tensor]] | UserError:
    """Images of one size together: their places in the batch, and uint8 ``[n, H, W, 3]``; or what is wrong with one."""
    wrong = next((image for image in images if isinstance(image, UserError)), None)
    if wrong is not None:
        return wrong
    groups: dict[tuple[int, ...], list[int]] = {}
    for place, image in enumerate(images):
        groups.setdefault(image.shape, []).append(place)
    return [(places, torch.from_numpy(np.stack([images[place] for place in places])))
            for places in groups.values()]
