"""Semantic branch of panoptic feature pyramid networks."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from harness.errors import UserError
from mtl_heads.blocks import resize
from mtl_heads.encoder import Pyramid
from mtl_heads.heads.base import Head
from mtl_heads.registry import HEADS


@HEADS.register("panoptic_fpn")
class PanopticFpn(Head):
    """Each scale climbs to the finest one in steps of two; their sum goes through a 1x1 convolution.

    A step is a 3x3 convolution, group norm, ReLU and a bilinear resize to twice the size; the finest
    scale has one without the resize (Kirillov et al., "Panoptic feature pyramid networks", 2019,
    section 3.1 and figure 3). Made for neck ``fpn``.

    Args:
        pyramid: shape of the features, at least two scales; all are read.
        outputs: output channels of the task.
        image: must be False.
        channels: of the branch.

    Raises:
        UserError: the features have one scale only, or there are no channels.
    """

    def __init__(self, pyramid: Pyramid, outputs: int, image: bool = False, *, channels: int = 128) -> None:
        super().__init__(pyramid, outputs, image)
        pyramid.require_scales("head 'panoptic_fpn'")
        if channels < 1:
            raise UserError(f"head 'panoptic_fpn' has {channels} channels: give a positive number")
        finest = min(pyramid.strides)
        self.steps = [max(0, round(math.log2(stride / finest))) for stride in pyramid.strides]
        self.branches = nn.ModuleList(
            nn.ModuleList(_convolution(inputs if i == 0 else channels, channels) for i in range(max(1, steps)))
            for inputs, steps in zip(pyramid.channels, self.steps, strict=True)
        )
        self.last_layer = nn.Conv2d(channels, outputs, 1)

    def gather(self, features: list[Tensor]) -> list[Tensor]:
        return features

    def predict(self, gathered: list[Tensor]) -> Tensor:
        height, width = (max(maps.shape[side] for maps in gathered) for side in (-2, -1))
        climbed = []
        for maps, steps, branch in zip(gathered, self.steps, self.branches, strict=True):
            for i, convolution in enumerate(branch, start=1):
                left = 2 ** max(0, steps - i)  # how much coarser it still is after this step
                maps = resize(convolution(maps), (-(-height // left), -(-width // left)))
            climbed.append(maps)
        return self.last_layer(torch.stack(climbed).sum(0))


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.GroupNorm(math.gcd(32, outputs), outputs),
        nn.ReLU(inplace=True),
    )
