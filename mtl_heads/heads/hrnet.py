"""Head of HRNet."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mtl_heads.blocks import resize
from mtl_heads.encoder import Pyramid
from mtl_heads.heads.base import Head
from mtl_heads.registry import HEADS


@HEADS.register("hrnet")
class HRNet(Head):
    """All scales at the finest one's size, concatenated, 1x1, BN, ReLU, 1x1 (Sun et al., 2019).

    Args:
        pyramid: shape of the features, at least two scales; all are read.
        outputs: output channels of the task.
        image: must be False.

    Raises:
        UserError: the features have one scale only.
    """

    vandenhende_prefix = ""

    def __init__(self, pyramid: Pyramid, outputs: int, image: bool = False) -> None:
        super().__init__(pyramid, outputs, image)
        pyramid.require_scales("head 'hrnet'")
        width = sum(pyramid.channels)
        self.last_layer = nn.Sequential(
            nn.Conv2d(width, width, 1),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, outputs, 1),
        )

    def gather(self, features: list[Tensor]) -> Tensor:
        finest = tuple(features[0].shape[-2:])
        return torch.cat([resize(feature, finest) for feature in features], dim=1)

    def predict(self, gathered: Tensor) -> Tensor:
        return self.last_layer(gathered)
