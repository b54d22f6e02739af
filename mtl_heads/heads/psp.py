"""Pyramid scene parsing head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.errors import UserError
from mtl_heads.blocks import PooledBatchNorm2d, conv_bn_relu, resize
from mtl_heads.encoder import Pyramid
from mtl_heads.heads.base import Head
from mtl_heads.registry import HEADS


@HEADS.register("psp")
class PSP(Head):
    """Context pooled on several grids beside the features (Zhao et al., "Pyramid scene parsing", 2017).

    Args:
        pyramid: shape of the features; the main one is read.
        outputs: output channels of the task.
        image: must be False.
        width: channels after the pooling.
        bins: cells per side of each pooling grid.
        dropout: share dropped in training before the last layer.
    """

    def __init__(
        self,
        pyramid: Pyramid,
        outputs: int,
        image: bool = False,
        *,
        width: int = 512,
        bins: tuple[int, ...] = (1, 2, 3, 6),
        dropout: float = 0.1,
    ) -> None:
        super().__init__(pyramid, outputs, image)
        if width < 1 or not bins or min(bins) < 1 or not 0 <= dropout <= 1:
            raise UserError(f"head 'psp': width {width}, bins {bins} or dropout {dropout} is out of range")
        inputs = pyramid.channels[pyramid.main]
        part = max(1, inputs // len(bins))
        self.context = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(side),
                nn.Conv2d(inputs, part, 1, bias=False),
                PooledBatchNorm2d(part),
                nn.ReLU(inplace=True),
            )
            for side in bins
        )
        self.layers = nn.Sequential(
            *conv_bn_relu(inputs + part * len(bins), width, 3),
            nn.Dropout(dropout),
            nn.Conv2d(width, outputs, 1),
        )

    def predict(self, gathered: Tensor) -> Tensor:
        size = tuple(gathered.shape[-2:])
        context = [resize(pool(gathered), size) for pool in self.context]
        return self.layers(torch.cat([gathered, *context], dim=1))
