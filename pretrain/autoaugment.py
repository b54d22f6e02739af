"""AutoAugment with the ImageNet policy, for every image on its own.

Source: Cubuk et al. (2019), AutoAugment, table 9. Policy and operations are kornia's, whose own class draws
one sub-policy for a whole batch. Magnitudes follow the released program: level 0 to 9 of ten evenly
spaced strengths; rotations, shears and enhancements go either way by a coin (kornia's class and the
paper's text spread the levels over both directions instead, which leaves posterize nearly idle).
Images that turn or shear uncover mid grey, as in the released program.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from kornia.augmentation.auto.autoaugment.autoaugment import imagenet_policy
from kornia.enhance import (
    adjust_contrast_with_mean_subtraction,
    adjust_saturation_with_gray_subtraction,
    equalize,
    posterize,
    sharpness,
    solarize,
)
from kornia.geometry.transform import rotate, shear
from torch import Generator, Tensor

from pretrain.groups import apply_to

Policy = list[list[tuple[str, float, int | None]]]
_GREY = 0.5


@dataclass(frozen=True)
class Operation:
    """One operation of the policy.

    Attributes:
        apply: ``(images [N, 3, H, W] in [0, 1], values [N]) -> images``.
        value: level 0 to 9, as a tensor -> size of the change.
        neutral: value of no change, to which a signed size is added; none: the size is the value.
    """

    apply: Callable[[Tensor, Tensor], Tensor]
    value: Callable[[Tensor], Tensor]
    neutral: float | None = None


def auto_contrast(images: Tensor) -> Tensor:
    """Stretch each channel of each image to the full range; a channel of one value stays.

    Args:
        images: ``[N, 3, H, W]`` in [0, 1].

    Returns:
        The same shape.
    """
    low, high = images.amin((-2, -1), keepdim=True), images.amax((-2, -1), keepdim=True)
    flat = low == high
    return torch.where(flat, images, (images - low) / torch.where(flat, 1, high - low))


def _shear_x(images: Tensor, amounts: Tensor) -> Tensor:
    return shear(images - _GREY, torch.stack([amounts, torch.zeros_like(amounts)], 1)) + _GREY


def _rotate(images: Tensor, degrees: Tensor) -> Tensor:
    return rotate(images - _GREY, degrees) + _GREY


def _posterize(images: Tensor, bits: Tensor) -> Tensor:
    return posterize(images, bits.int())


def _sharpness(images: Tensor, factors: Tensor) -> Tensor:
    return sharpness(images, factors) if min(images.shape[-2:]) >= 3 else images


def _enhance(level: Tensor) -> Tensor:
    return 0.1 * level


OPERATIONS: dict[str, Operation] = {
    "auto_contrast": Operation(lambda x, _: auto_contrast(x), torch.zeros_like),
    "equalize": Operation(lambda x, _: equalize(x), torch.zeros_like),
    "invert": Operation(lambda x, _: 1 - x, torch.zeros_like),
    "posterize": Operation(_posterize, lambda level: 8 - (level * 4 / 9).round()),
    "solarize": Operation(solarize, lambda level: 1 - level / 9),
    "color": Operation(adjust_saturation_with_gray_subtraction, _enhance, neutral=1),
    "contrast": Operation(adjust_contrast_with_mean_subtraction, _enhance, neutral=1),
    "sharpness": Operation(_sharpness, _enhance, neutral=1),
    "rotate": Operation(_rotate, lambda level: level * 30 / 9, neutral=0),
    "shear_x": Operation(_shear_x, lambda level: level * 0.3 / 9, neutral=0),
}


class AutoAugment:
    """Draws a sub-policy for every image, then runs each operation once for all images that need it.

    Args:
        policy: sub-policies, each a list of (operation, probability, level).
    """

    def __init__(self, policy: Policy = imagenet_policy) -> None:
        self.names = sorted({name for entries in policy for name, _, _ in entries})
        number = {name: index for index, name in enumerate(self.names)}
        self.operation = torch.tensor([[number[name] for name, _, _ in entries] for entries in policy])
        self.probability = torch.tensor([[float(p) for _, p, _ in entries] for entries in policy])
        self.level = torch.tensor([[float(level or 0) for _, _, level in entries] for entries in policy])

    def __call__(self, images: Tensor, generator: Generator | None = None) -> Tensor:
        """Augment every image by a sub-policy of its own.

        Args:
            images: float32 ``[N, 3, H, W]`` in [0, 1]; overwritten.
            generator: of random choices, on the CPU; torch's global one by default.

        Returns:
            ``images``.
        """
        count = len(images)
        policies, steps = self.operation.shape
        drawn = torch.randint(policies, (count,), generator=generator)
        active = torch.rand(count, steps, generator=generator) < self.probability[drawn]
        signs = torch.randint(2, (count, steps), generator=generator) * 2.0 - 1
        for step in range(steps):
            names, levels = self.operation[drawn, step], self.level[drawn, step]
            for index, name in enumerate(self.names):
                operation = OPERATIONS[name]
                values = operation.value(levels)
                if operation.neutral is not None:
                    values = operation.neutral + signs[:, step] * values
                images = apply_to(images, active[:, step] & (names == index), operation.apply, values)
        return images
