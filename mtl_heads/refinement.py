"""Residual blocks that decoders refine features with."""

from __future__ import annotations

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from mtl_heads.blocks import PooledBatchNorm2d


def residual_block(inputs: int, outputs: int, block: type[BasicBlock] | type[Bottleneck]) -> nn.Module:
    """One residual block at the same size; its shortcut is 1x1 and BN where the channels change.

    Args:
        inputs: channels that it reads.
        outputs: channels that it returns; a multiple of 4 for a bottleneck.
        block: torchvision's basic block or bottleneck (He et al., 2016).
    """
    shortcut = None
    if inputs != outputs:
        shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), PooledBatchNorm2d(outputs))
    return block(inputs, outputs // block.expansion, downsample=shortcut, norm_layer=PooledBatchNorm2d)


def refinement(
    inputs: int, outputs: int, block: type[BasicBlock] | type[Bottleneck] = BasicBlock
) -> nn.Sequential:
    """Two residual blocks: the task-specific heads of decoder-focused networks (thesis, section 5.3.1)."""
    return nn.Sequential(residual_block(inputs, outputs, block), residual_block(outputs, outputs, block))
