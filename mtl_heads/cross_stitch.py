"""Cross-stitch network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtl_heads.blocks import PerTask
from mtl_heads.columns import Columns, Exchange
from mtl_heads.registry import ARCHITECTURES
from mtl_heads.tasks import Tasks


class ChannelWeight(nn.Module):
    """A weight for each channel.

    Args:
        channels: how many.
        value: of all of them at first.
    """

    def __init__(self, channels: int, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), float(value)))

    def forward(self, like: Tensor) -> Tensor:
        """The weights ``[C, 1, 1]`` in the precision of maps."""
        return self.weight.to(like.dtype)[:, None, None]


class CrossStitchUnit(Exchange):
    """Every task's map becomes a linear combination, channel by channel, of all tasks' maps.

    x̃_t = Σ_s w_{t,s} ⊙ x_s (Misra et al., "Cross-stitch networks for multi-task learning", 2016,
    equation 1; Vandenhende 2022, equation 3.1), with a weight per channel.

    Args:
        tasks: their names.
        channels: of each task's map.
        alpha: first weight of a task's own map.
        beta: first weight of each other task's map.
    """

    def __init__(self, tasks: Sequence[str], channels: int, alpha: float, beta: float) -> None:
        super().__init__()
        self.weights = PerTask(
            {
                own: PerTask({other: ChannelWeight(channels, alpha if other == own else beta) for other in tasks})
                for own in tasks
            }
        )

    def forward(self, maps: dict[str, Tensor], tasks: Sequence[str]) -> dict[str, Tensor]:
        return {task: self._mix(self.weights[task], maps) for task in tasks}

    @staticmethod
    def _mix(weights: PerTask, maps: dict[str, Tensor]) -> Tensor:
        (first, value), *others = maps.items()
        mixed = value * weights[first](value)
        for other, value in others:
            mixed = mixed.addcmul_(value, weights[other](value))  # no second map is held
        return mixed


@ARCHITECTURES.register("cross_stitch")
class CrossStitch(Columns):
    """One network per task, and a cross-stitch unit after each stage of the encoders.

    It begins best from trained single-task networks (Misra et al. 2016; Vandenhende 2022, section 3.4).

    Args:
        backbone: timm name, or a module that returns a list of features.
        tasks: any.
        alpha: first weight of a task's own features (.9 for NYUD, .8 for PASCAL in Vandenhende 2022).
        beta: first weight of each other task's features (.1 for NYUD, .05 for PASCAL).
        lr_multiplier: of the units' learning rate; by default the published 100 with SGD, and 1 with optimisers
            such as Adam, whose steps do not shrink with the gradients.
        head: head of the dense tasks; image tasks have a linear one.
        head_options: options of that head.
        neck: what stands between each backbone and its head.
        neck_options: options of the neck.
        output_stride: stride of the coarsest features, 8, 16 or 32; by default the backbone's own.
        backbone_options: keyword arguments of ``timm.create_model``.

    Raises:
        UserError: the backbone cannot be cut into stages, or the multiplier is not positive.
    """

    def __init__(
        self,
        backbone: str | nn.Module,
        tasks: Tasks,
        *,
        alpha: float = 0.9,
        beta: float = 0.1,
        lr_multiplier: float | None = None,
        head: str = "deeplab",
        head_options: dict[str, Any] | None = None,
        neck: str = "none",
        neck_options: dict[str, Any] | None = None,
        output_stride: int | None = None,
        backbone_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            backbone,
            tasks,
            alpha=alpha,
            beta=beta,
            lr_multiplier=lr_multiplier,
            head=head,
            head_options=head_options,
            neck=neck,
            neck_options=neck_options,
            output_stride=output_stride,
            backbone_options=backbone_options,
        )

    def exchange(self, channels: int, alpha: float, beta: float) -> CrossStitchUnit:
        return CrossStitchUnit(self.task_set.all, channels, alpha, beta)

    def vandenhende_prefixes(self) -> dict[str, str]:
        prefixes = super().vandenhende_prefixes()
        for i, exchanges in enumerate(self.exchanges):
            for own in self.tasks:
                for other in self.tasks:
                    theirs = f"cross_stitch.layer{i + 1}.cross_stitch_unit.{own}.{other}.param"
                    weights = exchanges[0].weights
                    prefixes[theirs] = (
                        f"exchanges.{i}.0.weights.{weights.key(own)}.{weights.key(other)}.weight"
                    )
        return prefixes
