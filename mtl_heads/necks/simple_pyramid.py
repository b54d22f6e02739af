"""Simple feature pyramid."""

from __future__ import annotations

import math

from timm.layers import LayerNorm2d
from torch import Tensor, nn

from harness.errors import UserError
from mtl_heads.necks.base import Neck
from mtl_heads.registry import NECKS


@NECKS.register("simple_pyramid")
class SimplePyramid(Neck):
    """Several scales of the last features of a plain transformer.

    Each scale is made of the last map alone, in parallel: transposed 2x2 convolutions of stride 2 for
    the finer ones (layer norm and GELU between two of them), maximum pooling for the coarser ones,
    then 1x1 and 3x3 convolutions with layer norm (Li et al., "Exploring plain vision transformer
    backbones for object detection", 2022, section 3 and appendix A.2).

    Scales are the backbone's stride times a power of two, the nearest to what is asked: patches of 14
    pixels give 3.5, 7, 14, 28 for 4, 8, 16, 32.

    Args:
        pyramid: shape of the backbone's features, all of one stride; the last one is read.
        channels: of every feature that it returns.
        strides: of the features that it returns, fine to coarse.

    Raises:
        UserError: the backbone has several strides already, or an option is out of range.
    """

    def __init__(self, pyramid, *, channels: int = 256, strides: tuple[int, ...] = (4, 8, 16, 32)) -> None:
        if len(set(pyramid.strides)) > 1:
            own = ", ".join(map(str, pyramid.strides))
            raise UserError(
                f"neck 'simple_pyramid' is for features of one stride, {pyramid.name} has {own}: "
                "choose neck 'fpn' or 'none'"
            )
        if channels < 1 or not strides or min(strides) < 1 or list(strides) != sorted(set(strides)):
            raise UserError(
                f"neck 'simple_pyramid': channels {channels} or strides {tuple(strides)} is out of range: "
                "give a positive number and ascending strides"
            )
        own = pyramid.strides[-1]
        steps = [round(math.log2(own / stride)) for stride in strides]
        exact = [own / 2**step for step in steps]
        super().__init__(
            pyramid._replace(
                channels=(channels,) * len(steps),
                strides=tuple(max(1, round(stride)) for stride in exact),
                main=0,
                name=f"the simple_pyramid of {pyramid.name}",
            )
        )
        self.exact_strides = exact
        self.scales = nn.ModuleList(_scale(pyramid.channels[-1], channels, step) for step in steps)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        return [scale(features[-1]) for scale in self.scales]

    def crop(self, features: list[Tensor], size: tuple[int, int]) -> list[Tensor]:
        """Without the cells beyond the image, where the backbone padded it to whole patches."""
        height, width = size
        return [
            feature[..., : math.ceil(height / stride), : math.ceil(width / stride)]
            for feature, stride in zip(features, self.exact_strides, strict=True)
        ]


def _scale(inputs: int, channels: int, step: int) -> nn.Sequential:
    """Double the size ``step`` times, or halve it ``-step`` times, and project."""
    layers: list[nn.Module] = [nn.MaxPool2d(2, ceil_mode=True) for _ in range(-step)]
    for i in range(step):
        if i:
            layers += [LayerNorm2d(inputs), nn.GELU()]
        layers.append(nn.ConvTranspose2d(inputs, max(1, inputs // 2), 2, stride=2))
        inputs = max(1, inputs // 2)
    return nn.Sequential(
        *layers,
        nn.Conv2d(inputs, channels, 1, bias=False),
        LayerNorm2d(channels),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        LayerNorm2d(channels),
    )
