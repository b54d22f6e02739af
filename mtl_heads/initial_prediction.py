"""The front-end of decoder-focused networks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from mtl_heads.blocks import PerTask, resize
from mtl_heads.refinement import refinement


class InitialPrediction(nn.Module):
    """Task features, and from them a first prediction, of every task (thesis, figure 5.1).

    Args:
        inputs: channels of what it reads, those of a coarser scale's task features included.
        channels: of the task features.
        outputs: output channels of each task, auxiliary ones included.
        block: residual block that makes the task features.
    """

    def __init__(
        self,
        inputs: int,
        channels: int,
        outputs: Mapping[str, int],
        block: type[BasicBlock] | type[Bottleneck] = BasicBlock,
    ) -> None:
        super().__init__()
        self.refinement = PerTask({task: refinement(inputs, channels, block) for task in outputs})
        self.decoders = PerTask({task: nn.Conv2d(channels, number, 1) for task, number in outputs.items()})

    def forward(
        self, features: Tensor, tasks: Iterable[str], coarser: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Task features ``[B, channels, h, w]``.

        Args:
            features: backbone features ``[B, C, h, w]``.
            tasks: whose features to make.
            coarser: task features ``[B, C', h', w']`` that the next coarser scale propagates; they are
                resized and read beside the backbone's.
        """
        size = tuple(features.shape[-2:])
        made: dict[str, Tensor] = {}
        for task in tasks:
            read = features
            if coarser is not None:
                read = torch.cat([features, resize(coarser[task], size)], dim=1)
            made[task] = self.refinement[task](read)
        return made

    def predict(self, features: Mapping[str, Tensor], tasks: Iterable[str]) -> dict[str, Tensor]:
        """Initial predictions ``[B, outputs, h, w]`` from the task features."""
        return {task: self.decoders[task](features[task]) for task in tasks}
