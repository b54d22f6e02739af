"""Photometric augmentation of whole batches on the device, with its own randomness for every view.

Source: Chen et al. (2020), MoCo v2; Vandenhende (2022), section 7.4.2 and table 7.7. The operations are
kornia's, but for the hue; what is drawn for each view, and in which groups the operations run, is decided
here. Choices are drawn on the host, from one generator whatever the device, and travel to the device as
indices: nothing waits for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from kornia.color import rgb_to_grayscale
from kornia.enhance import (
    adjust_brightness_accumulative,
    adjust_contrast_with_mean_subtraction,
    adjust_saturation_with_gray_subtraction,
)
from kornia.filters import gaussian_blur2d
from torch import Generator, Tensor, nn

from harness.errors import UserError
from harness.registry import Registry
from pretrain.autoaugment import AutoAugment
from pretrain.groups import apply_to
from pretrain.hue import shift_hue

AUGMENTATIONS: Registry[type[Augmentation]] = Registry("augmentation")

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Augmentation(nn.Module):
    """Base of the augmentations: bytes in, normalised numbers out.

    Args:
        mean: of the channels, in [0, 1], subtracted at the end.
        std: of the channels, in [0, 1], divided by at the end.

    Attributes:
        convention: ``mean`` and ``std`` as plain numbers, for whoever uses the weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.convention = {"mean": tuple(mean), "std": tuple(std)}
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    @torch.no_grad()
    def forward(self, images: Tensor, key: bool = False, generator: Generator | None = None) -> Tensor:
        """Augment every image on its own.

        Args:
            images: uint8 ``[N, 3, H, W]``.
            key: these are key views, which some augmentations treat more gently.
            generator: of random choices, on the CPU; torch's global one by default.

        Returns:
            float32 ``[N, 3, H, W]``, normalised, on the device of ``images``.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise UserError(
                f"augmentation: got {images.dtype} {tuple(images.shape)}: give uint8 [N, 3, H, W]"
            )
        with torch.autocast(images.device.type, enabled=False):
            return self.augment(images.float().div_(255), key, generator).sub_(self.mean).div_(self.std)

    def augment(self, images: Tensor, key: bool, generator: Generator | None) -> Tensor:
        """What a subclass does: float32 in [0, 1] in (may be overwritten), the same out."""
        raise NotImplementedError


@AUGMENTATIONS.register("none")
class NoAugmentation(Augmentation):
    """Only normalises: crops are the only difference between the views.

    Args:
        mean: of the channels, in [0, 1], subtracted at the end.
        std: of the channels, in [0, 1], divided by at the end.
    """

    def augment(self, images: Tensor, key: bool, generator: Generator | None) -> Tensor:
        """Unchanged."""
        return images


@AUGMENTATIONS.register("standard")
class Standard(Augmentation):
    """Colour jitter, grey, Gaussian blur and flip, as in MoCo v2 and SimCLR.

    Jitter factors are uniform in [1 − strength, 1 + strength] (hue: a shift within ± strength of the full
    circle), and the four jitters come in a random order, for each image.

    Args:
        brightness: strength of the brightness jitter.
        contrast: strength of the contrast jitter.
        saturation: strength of the saturation jitter.
        hue: strength of the hue jitter, 0 to 0.5.
        jitter_probability: share of the views that get the colour jitter.
        grey_probability: share of the views that turn grey.
        blur_probability: share of the views that are blurred.
        blur_sigma: smallest and largest standard deviation of the blur, in pixels of the view.
        flip_probability: share of the views that are mirrored left to right.
        mean: of the channels, in [0, 1], subtracted at the end.
        std: of the channels, in [0, 1], divided by at the end.
    """

    def __init__(
        self,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.4,
        hue: float = 0.1,
        jitter_probability: float = 0.8,
        grey_probability: float = 0.2,
        blur_probability: float = 0.5,
        blur_sigma: tuple[float, float] = (0.1, 2.0),
        flip_probability: float = 0.5,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
    ) -> None:
        super().__init__(mean, std)
        _check_range("hue", hue, 0.5)
        for name, value in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation)):
            _check_range(name, value, math.inf)
        for name, value in (
            ("jitter_probability", jitter_probability), ("grey_probability", grey_probability),
            ("blur_probability", blur_probability), ("flip_probability", flip_probability),
        ):
            _check_range(name, value, 1)
        if not 0 < blur_sigma[0] <= blur_sigma[1]:
            raise UserError(f"blur_sigma is {tuple(blur_sigma)}: set two numbers with 0 < low <= high")
        self.jitters: tuple[tuple[Callable[[Tensor, Tensor], Tensor], float, float], ...] = (
            (adjust_brightness_accumulative, max(0.0, 1 - brightness), 1 + brightness),
            (adjust_contrast_with_mean_subtraction, max(0.0, 1 - contrast), 1 + contrast),
            (adjust_saturation_with_gray_subtraction, max(0.0, 1 - saturation), 1 + saturation),
            (shift_hue, -hue, hue),
        )
        self.jitter_probability = jitter_probability
        self.grey_probability = grey_probability
        self.blur_probability = blur_probability
        self.blur_sigma = blur_sigma
        self.flip_probability = flip_probability

    def augment(self, images: Tensor, key: bool, generator: Generator | None) -> Tensor:
        """The standard augmentation, for key and other views alike."""
        return self.standard(images, generator)

    def standard(self, images: Tensor, generator: Generator | None) -> Tensor:
        """Jitter, grey, blur, flip of float images in [0, 1]; in place.

        Args:
            images: float32 ``[N, 3, H, W]``.
            generator: of random choices, on the CPU; torch's global one by default.

        Returns:
            ``images``.
        """
        jitter, grey, blur = torch.rand(3, len(images), generator=generator)
        images = self._jitter(images, jitter < self.jitter_probability, generator)
        images = apply_to(images, grey < self.grey_probability, lambda x: rgb_to_grayscale(x).expand_as(x))
        images = self._blur(images, blur < self.blur_probability, generator)
        return self.flip(images, generator)

    def flip(self, images: Tensor, generator: Generator | None) -> Tensor:
        """Mirror a random part of the images left to right; in place."""
        chosen = torch.rand(len(images), generator=generator) < self.flip_probability
        return apply_to(images, chosen, lambda x: x.flip(-1))

    def _jitter(self, images: Tensor, chosen: Tensor, generator: Generator | None) -> Tensor:
        count = len(images)
        order = torch.rand(count, len(self.jitters), generator=generator).argsort(1)
        factors = torch.rand(len(self.jitters), count, generator=generator)
        for step in range(len(self.jitters)):
            for index, (adjust, low, high) in enumerate(self.jitters):
                if low == high:  # strength 0 changes nothing
                    continue
                drawn = low + factors[index] * (high - low)
                images = apply_to(images, chosen & (order[:, step] == index), adjust, drawn)
        return images

    def _blur(self, images: Tensor, chosen: Tensor, generator: Generator | None) -> Tensor:
        low, high = self.blur_sigma
        sigma = low + torch.rand(len(images), generator=generator) * (high - low)
        # Three standard deviations each side, no wider than the reflected border can be.
        taps = [min(2 * math.ceil(3 * high) + 1, 2 * size - 1) for size in images.shape[-2:]]
        # On the host: kornia looks whether they are positive, and would wait for the device to tell.
        sigma = sigma[chosen][:, None].expand(-1, 2)
        return apply_to(images, chosen, lambda x: gaussian_blur2d(x, tuple(taps), sigma))


@AUGMENTATIONS.register("mix")
class Mix(Standard):
    """Standard for the key; every other view flips a coin between standard and flip + AutoAugment.

    Source: Vandenhende (2022), table 7.7: the mix 83.7, standard alone 82.8, AutoAugment alone 79.9.

    Args:
        autoaugment_probability: share of the views other than the key that get AutoAugment.
        brightness: strength of the brightness jitter.
        contrast: strength of the contrast jitter.
        saturation: strength of the saturation jitter.
        hue: strength of the hue jitter, 0 to 0.5.
        jitter_probability: share of the standard views that get the colour jitter.
        grey_probability: share of the standard views that turn grey.
        blur_probability: share of the standard views that are blurred.
        blur_sigma: smallest and largest standard deviation of the blur, in pixels of the view.
        flip_probability: share of all views that are mirrored left to right.
        mean: of the channels, in [0, 1], subtracted at the end.
        std: of the channels, in [0, 1], divided by at the end.
    """

    def __init__(
        self,
        autoaugment_probability: float = 0.5,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.4,
        hue: float = 0.1,
        jitter_probability: float = 0.8,
        grey_probability: float = 0.2,
        blur_probability: float = 0.5,
        blur_sigma: tuple[float, float] = (0.1, 2.0),
        flip_probability: float = 0.5,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
    ) -> None:
        super().__init__(
            brightness, contrast, saturation, hue, jitter_probability, grey_probability, blur_probability,
            blur_sigma, flip_probability, mean, std,
        )
        _check_range("autoaugment_probability", autoaugment_probability, 1)
        self.autoaugment_probability = autoaugment_probability
        self.autoaugment = AutoAugment()

    def augment(self, images: Tensor, key: bool, generator: Generator | None) -> Tensor:
        """Standard or AutoAugment, by a coin for each view."""
        if key or not self.autoaugment_probability:
            return self.standard(images, generator)
        coin = torch.rand(len(images), generator=generator) < self.autoaugment_probability
        images = apply_to(images, coin, lambda x: self.autoaugment(self.flip(x, generator), generator))
        return apply_to(images, ~coin, lambda x: self.standard(x, generator))


@AUGMENTATIONS.register("autoaugment")
class OnlyAutoAugment(Mix):
    """Standard for the key; flip + AutoAugment for every other view (second row of table 7.7).

    Args:
        brightness: strength of the brightness jitter of the key.
        contrast: strength of the contrast jitter of the key.
        saturation: strength of the saturation jitter of the key.
        hue: strength of the hue jitter of the key, 0 to 0.5.
        jitter_probability: share of the keys that get the colour jitter.
        grey_probability: share of the keys that turn grey.
        blur_probability: share of the keys that are blurred.
        blur_sigma: smallest and largest standard deviation of the blur, in pixels of the view.
        flip_probability: share of all views that are mirrored left to right.
        mean: of the channels, in [0, 1], subtracted at the end.
        std: of the channels, in [0, 1], divided by at the end.
    """

    def __init__(
        self,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.4,
        hue: float = 0.1,
        jitter_probability: float = 0.8,
        grey_probability: float = 0.2,
        blur_probability: float = 0.5,
        blur_sigma: tuple[float, float] = (0.1, 2.0),
        flip_probability: float = 0.5,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
    ) -> None:
        super().__init__(
            1.0, brightness, contrast, saturation, hue, jitter_probability, grey_probability,
            blur_probability, blur_sigma, flip_probability, mean, std,
        )


def _check_range(name: str, value: float, top: float) -> None:
    if not 0 <= value <= top:
        limit = f"between 0 and {top:g}" if top < math.inf else "to 0 or more"
        raise UserError(f"{name} is {value}: set it {limit}")
