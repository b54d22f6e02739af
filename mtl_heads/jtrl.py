"""Joint task-recursive learning."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import UserError
from mtl_heads.blocks import PerTask, resize
from mtl_heads.decoder_focused import DecoderFocused
from mtl_heads.refinement import refinement
from mtl_heads.registry import ARCHITECTURES
from mtl_heads.scales import finest_scales
from mtl_heads.task_attention import TaskAttention
from mtl_heads.tasks import Tasks


class RecursiveStep(nn.Module):
    """One refinement of one task at one scale.

    Args:
        inputs: channels of the backbone's features at this scale.
        channels: of the states of both tasks.
        outputs: output channels of the task.
        has_past: the task was refined at a coarser scale before.
        sees_other: the other task was refined before.
    """

    def __init__(self, inputs: int, channels: int, outputs: int, has_past: bool, sees_other: bool) -> None:
        super().__init__()
        self.refinement = refinement(inputs + channels * has_past, channels)
        self.attention = TaskAttention(channels) if sees_other else None
        self.decoder = nn.Conv2d(channels, outputs, 1)

    def forward(self, features: Tensor, past: Tensor | None, other: Tensor | None) -> Tensor:
        """New state ``[B, channels, h, w]`` of the task.

        Args:
            features: the backbone's ``[B, C, h, w]``.
            past: the task's state at the coarser scale; its first refinement has none.
            other: the other task's latest state; the very first refinement has none.
        """
        size = tuple(features.shape[-2:])
        if past is not None:
            features = torch.cat([features, resize(past, size)], dim=1)
        state = self.refinement(features)
        return state if self.attention is None else self.attention(state, resize(other, size))


@ARCHITECTURES.register("jtrl")
class Jtrl(DecoderFocused):
    """Joint task-recursive learning (Zhang et al., 2018; thesis, section 3.1.3, figure 3.8).

    Two tasks are refined in turn at growing scales: each step reads the backbone's features, the task's
    own last state and the other's latest one through a task-attentional module. Every state makes a
    prediction; those of the finest scale are the network's, the others are in ``Output.intermediate``,
    fine to coarse, in training. The task that comes first in the configuration is refined first.

    Args:
        backbone: timm name, or a module that returns a list of features.
        tasks: exactly two that predict maps, none of them auxiliary; image tasks have a linear head.
        channels: of the tasks' states.
        neck: what stands between the backbone and the task parts.
        neck_options: options of the neck.
        output_stride: stride of the coarsest features, 8, 16 or 32; by default the backbone's own.
        backbone_options: keyword arguments of ``timm.create_model``.

    Raises:
        UserError: the tasks are not two, the pyramid has one scale only, or the channels are none.
    """

    def __init__(
        self,
        backbone: str | nn.Module,
        tasks: Tasks,
        *,
        channels: int = 128,
        neck: str = "none",
        neck_options: dict[str, Any] | None = None,
        output_stride: int | None = None,
        backbone_options: dict[str, Any] | None = None,
    ) -> None:
        if len(tasks.dense) != 2 or tasks.auxiliary:
            given = [*tasks.dense, *tasks.auxiliary]
            raise UserError(
                f"architecture 'jtrl' refines exactly two tasks in turn, dense and not auxiliary, not "
                f"{len(given)} ({', '.join(given) or 'none'}): give two, or choose 'pap_net' or 'mti_net'"
            )
        if channels < 1:
            raise UserError(f"architecture 'jtrl' has channels={channels}: give a positive number")
        super().__init__(
            backbone,
            tasks,
            neck=neck,
            neck_options=neck_options,
            output_stride=output_stride,
            backbone_options=backbone_options,
        )
        pyramid = self.encoder.pyramid
        self.scales = finest_scales(pyramid, None, type(self).__name__, least=2)
        first = next(iter(tasks.dense))
        coarsest = len(self.scales) - 1
        self.steps = nn.ModuleList(
            PerTask(
                {
                    task: RecursiveStep(
                        pyramid.channels[scale],
                        channels,
                        number,
                        has_past=position != coarsest,
                        sees_other=position != coarsest or task != first,
                    )
                    for task, number in tasks.dense.items()
                }
            )
            for position, scale in enumerate(self.scales)
        )

    @property
    def intermediate_strides(self) -> list[int]:
        return [self.encoder.pyramid.strides[scale] for scale in self.scales[1:]]

    def decode_dense(
        self, features: list[Tensor], tasks: list[str], early: list[str]
    ) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
        first, second = self.task_set.dense
        last = first if tasks == [first] else second  # of the steps that have to be run
        states: dict[str, Tensor | None] = {first: None, second: None}
        made: list[dict[str, Tensor]] = []
        for position in reversed(range(len(self.scales))):
            made.insert(0, {})
            for task, other in ((first, second), (second, first)):
                step = self.steps[position][task]
                states[task] = step(features[self.scales[position]], states[task], states[other])
                if task in (tasks if position == 0 else early):
                    made[0][task] = step.decoder(states[task])
                if position == 0 and task == last:
                    break
        return made[0], made[1:]
