"""Telling tasks apart by their gradients, and keeping them from being told apart."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * -ctx.strength, None


def reverse_gradient(values: Tensor, strength: float = 1.0) -> Tensor:
    """The same values; what flows back is multiplied by ``-strength`` (Ganin and Lempitsky, 2015)."""
    return _Reversed.apply(values, strength)


class GradientDiscriminator(nn.Module):
    """Guesses whose gradient of the representation it sees.

    Its loss trains it, and through reversal makes the network's gradients alike (Sinha et al., "Gradient
    adversarial training of neural networks", 2018; Maninis et al., 2019, section 3.3). Gradients are
    scaled to mean square one per image, so that they cannot be told by their size.

    Args:
        channels: of the representation.
        tasks: how many there are.
        hidden: channels inside.
    """

    def __init__(self, channels: int, tasks: int, hidden: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, hidden, 1), nn.ReLU(inplace=True), nn.Conv2d(hidden, tasks, 1)
        )

    def forward(self, gradients: Tensor) -> Tensor:
        """Logits ``[B, tasks]`` from ``[B, C, h, w]``."""
        gradients = gradients.float()
        # By the largest first: squares of small floats are 0. Images without a gradient stay 0.
        largest = gradients.detach().abs().amax((1, 2, 3), keepdim=True)
        gradients = gradients / largest.clamp(min=1e-30)
        size = gradients.square().mean((1, 2, 3), keepdim=True)
        return self.layers(gradients * (size + 1e-12).rsqrt()).mean((2, 3))

    def loss(self, gradients: Tensor, task: int, strength: float) -> Tensor:
        """Mean cross-entropy over the images that have a gradient (the others have no label of the task).

        Args:
            gradients: of one task's loss, ``[B, C, h, w]``, with a graph.
            task: number of the task that they are of.
            strength: of the reversal.
        """
        seen = gradients.detach().flatten(1).any(1).float()
        logits = self(reverse_gradient(gradients, strength))
        target = torch.full((len(logits),), task, device=logits.device)
        return (F.cross_entropy(logits, target, reduction="none") * seen).sum() / seen.sum().clamp(min=1)
