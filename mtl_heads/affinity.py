"""Distillation through pixel affinities."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtl_heads.blocks import PerTask, resize


class PixelAffinity(nn.Module):
    """How alike the pixels of one task's features are.

    Inner products of embedded pixels, normalised by a softmax so that each row sums to one (Zhang et
    al., "Pattern-affinitive propagation", 2019).

    Args:
        channels: of the task features; the embedding has half as many.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.embedding = nn.Conv2d(channels, max(1, channels // 2), 1)

    def forward(self, features: Tensor) -> Tensor:
        """Affinities ``[B, P, P]`` of the ``P = h * w`` pixels of ``[B, C, h, w]``."""
        pixels = self.embedding(features).flatten(2)
        # The square root keeps the softmax soft, whatever the number of channels.
        scaled = pixels / math.sqrt(pixels.shape[1])
        return (scaled.transpose(1, 2) @ pixels).softmax(-1)


class AffinityDiffusion(nn.Module):
    """Mixes the tasks' affinities for one task and diffuses its features with them.

    Args:
        sources: number of tasks whose affinities are mixed.
        steps: times that the features are multiplied by the mixed matrix.
    """

    def __init__(self, sources: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.mixing = nn.Parameter(torch.zeros(sources))  # logits of the weights: equal ones at first
        self.strength = nn.Parameter(torch.zeros(1))  # logit of the diffused features' share: a half at first

    def forward(self, affinities: list[Tensor], reduced: Tensor, features: Tensor) -> Tensor:
        """Refined features ``[B, C, H, W]``.

        On a grid as fine as the features this is the paper's ``b M^n F + (1 - b) F``. On a coarser one
        what the diffusion changes there is added, so that the features keep their detail.

        Args:
            affinities: ``[B, P, P]`` of each source.
            reduced: the task's features ``[B, C, h, w]`` on the grid of the affinities, ``P = h * w``.
            features: the task's features ``[B, C, H, W]``.
        """
        first, *others = self.mixing.softmax(0).unbind()
        mixed = first * affinities[0]
        for weight, affinity in zip(others, affinities[1:], strict=True):
            mixed = mixed + weight * affinity
        diffused = before = reduced.flatten(2).transpose(1, 2)
        for _ in range(self.steps):
            diffused = mixed @ diffused
        change = (diffused - before).transpose(1, 2).unflatten(2, reduced.shape[-2:])
        return features + self.strength.sigmoid() * resize(change, tuple(features.shape[-2:]))


class AffinityDistillation(nn.Module):
    """Cross-task propagation of pixel affinities (thesis, equation 3.3).

    Args:
        targets: tasks whose features are refined.
        sources: tasks whose affinities are read, the targets and auxiliary ones.
        channels: of the task features.
        grid: cells of the longer side of the grid on which affinities are computed.
        steps: steps of the diffusion.
    """

    def __init__(
        self, targets: Iterable[str], sources: Iterable[str], channels: int, *, grid: int, steps: int
    ) -> None:
        super().__init__()
        self.sources = tuple(sources)
        self.grid = grid
        self.affinities = PerTask({task: PixelAffinity(channels) for task in self.sources})
        self.diffusion = PerTask({task: AffinityDiffusion(len(self.sources), steps) for task in targets})

    def forward(self, features: Mapping[str, Tensor], targets: Iterable[str]) -> dict[str, Tensor]:
        """Refined features ``[B, C, H, W]`` of the targets.

        Args:
            features: of all sources, ``[B, C, H, W]``.
            targets: whose features to refine.
        """
        reduced = {task: self._reduce(features[task]) for task in self.sources}
        affinities = [self.affinities[task](reduced[task]) for task in self.sources]
        return {task: self.diffusion[task](affinities, reduced[task], features[task]) for task in targets}

    def _reduce(self, features: Tensor) -> Tensor:
        """Means over squares of pixels, so that neither side has more cells than the grid."""
        side = math.ceil(max(features.shape[-2:]) / self.grid)
        return F.avg_pool2d(features, side, ceil_mode=True) if side > 1 else features
