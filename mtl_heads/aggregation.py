"""Aggregation of one task's features over the scales."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from mtl_heads.blocks import PooledBatchNorm2d, resize


class FeatureAggregation(nn.Module):
    """All scales at the finest one's size, concatenated, 1x1, BN, ReLU, 1x1 (thesis, section 5.2.3).

    The layers are those of HRNet's head (Sun et al., 2019); here each task has features of its own, and
    one scale is enough.

    Args:
        channels: of the features at each scale.
        outputs: output channels of the task.
    """

    def __init__(self, channels: Iterable[int], outputs: int) -> None:
        super().__init__()
        width = sum(channels)
        self.last_layer = nn.Sequential(
            nn.Conv2d(width, width, 1),
            PooledBatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, outputs, 1),
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        """Prediction ``[B, outputs, h, w]`` at the size of the first of the features ``[B, C_s, h_s, w_s]``."""
        finest = tuple(features[0].shape[-2:])
        return self.last_layer(torch.cat([resize(feature, finest) for feature in features], dim=1))
