"""Feature propagation from a coarse scale to the next finer one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from harness.errors import UserError
from mtl_heads.blocks import PerTask
from mtl_heads.refinement import residual_block
from mtl_heads.squeeze_excitation import SqueezeExcitation

GROUPINGS = ("paper", "published")
REDUCTION = 4  # as published


class FeaturePropagation(nn.Module):
    """Feature propagation module (FPM) of MTI-Net (thesis, section 5.2.2, figure 5.5).

    The features of all N tasks are harmonised into one shared representation: concatenated, gated by a
    mask that a non-linear function of them makes, and reduced to the channels C of one task. Each task
    then selects channels of it by squeeze-and-excitation, as a residual to its own features.

    Args:
        tasks: in the order in which their features are concatenated.
        channels: C, of each task's features.
        grouping: over what the mask is a softmax: ``"paper"``: over the tasks, for each channel of a task;
            ``"published"``: over N neighbouring channels of the concatenation, as the published program
            reshapes it, which are mostly of one task.
        reduction: channels of the concatenation, N·C, for each hidden one of the mask's function.

    Raises:
        UserError: the grouping is unknown, or the reduction is below 1.
    """

    def __init__(
        self, tasks: Iterable[str], channels: int, *, grouping: str = "paper", reduction: int = REDUCTION
    ) -> None:
        super().__init__()
        if grouping not in GROUPINGS:
            raise UserError(f"grouping is '{grouping}': give one of {', '.join(GROUPINGS)}")
        if reduction < 1:
            raise UserError(f"the propagation has reduction {reduction}: give 1 or more")
        self.grouping = grouping
        self.channels = channels
        self.tasks = tuple(tasks)
        together = len(self.tasks) * channels
        hidden = max(1, together // reduction)
        self.non_linear = nn.Sequential(
            residual_block(together, hidden, BasicBlock),
            residual_block(hidden, hidden, BasicBlock),
            nn.Conv2d(hidden, together, 1),
        )
        self.dimensionality_reduction = residual_block(together, channels, BasicBlock)
        self.se = PerTask({task: SqueezeExcitation(channels) for task in self.tasks})

    def forward(self, features: Mapping[str, Tensor], tasks: Iterable[str]) -> dict[str, Tensor]:
        """Refined features ``[B, C, h, w]``.

        Args:
            features: of all tasks, ``[B, C, h, w]``.
            tasks: whose features to refine.
        """
        shared = self.harmonise([features[task] for task in self.tasks])
        return {task: features[task] + self.se[task](shared) for task in tasks}

    def harmonise(self, features: list[Tensor]) -> Tensor:
        """The shared representation ``[B, C, h, w]`` of the tasks' features."""
        together = torch.cat(features, dim=1)
        scores, count = self.non_linear(together), len(features)
        if self.grouping == "paper":
            mask = scores.unflatten(1, (count, self.channels)).softmax(1)
        else:
            mask = scores.unflatten(1, (self.channels, count)).softmax(2)
        return self.dimensionality_reduction(together * mask.flatten(1, 2))
