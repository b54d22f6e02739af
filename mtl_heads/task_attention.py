"""Distillation between two tasks that are refined in turn."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mtl_heads.blocks import PooledBatchNorm2d, resize


class TaskAttention(nn.Module):
    """Refines one task's features by those of the other (the task-attentional module of Zhang et al., 2018).

    A balance gate weighs the two against each other, per cell and channel; a mask that sees a wider
    neighbourhood (it is made at half the size) raises what matters of the balanced features; a last
    layer reads them beside the task's own.

    Args:
        channels: of the features of either task.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.balance = nn.Sequential(nn.Conv2d(2 * channels, channels, 1), nn.Sigmoid())
        self.mask = nn.Sequential(
            nn.Conv2d(channels, channels, 3, stride=2, padding=1, bias=False),
            PooledBatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        self.fuse = nn.Sequential(
            nn.Conv2d(2 * channels, channels, 3, padding=1, bias=False),
            PooledBatchNorm2d(channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, own: Tensor, other: Tensor) -> Tensor:
        """``[B, C, h, w]`` from the task's own features and the other's, both ``[B, C, h, w]``."""
        balanced = torch.lerp(other, own, self.balance(torch.cat([own, other], dim=1)))
        mask = resize(self.mask(balanced), tuple(own.shape[-2:])).sigmoid()
        return self.fuse(torch.cat([own, (1 + mask) * balanced], dim=1))
