"""Multi-task attention network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from timm.models.resnet import Bottleneck
from torch import Tensor, nn

from harness.errors import UserError
from mtl_heads.blocks import PerTask, resize
from mtl_heads.encoder import Encoder
from mtl_heads.model import MultiTaskModel
from mtl_heads.output import Output
from mtl_heads.registry import ARCHITECTURES
from mtl_heads.residual import ResidualStages
from mtl_heads.task_heads import TaskHeads
from mtl_heads.tasks import Tasks


def attention(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Soft mask ``[B, outputs, h, w]`` in [0, 1] of features ``[B, inputs, h, w]``."""
    return nn.Sequential(
        nn.Conv2d(inputs, hidden, 1),
        nn.BatchNorm2d(hidden),
        nn.ReLU(inplace=True),
        nn.Conv2d(hidden, outputs, 1),
        nn.BatchNorm2d(outputs),
        nn.Sigmoid(),
    )


def refinement(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Bottleneck block that brings attended features to the next stage's channels, then max pooling to its size."""
    shortcut = None
    if inputs != outputs:
        shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
    block = Bottleneck(inputs, outputs // Bottleneck.expansion, downsample=shortcut)
    # Strided convolutions round sizes up.
    return nn.Sequential(block, *([nn.MaxPool2d(stride, stride, ceil_mode=True)] if stride > 1 else []))


@ARCHITECTURES.register("mtan")
class Mtan(MultiTaskModel):
    """A shared encoder, of which each task selects features by attention at the end of every stage.

    Liu et al., "End-to-end multi-task learning with attention", 2018, in the form that has residual
    stages (Vandenhende, 2022, section 3.1.2). With u the output of a stage and u' that of its block
    before the last, task t has

        a_t^1 = m_t^1(u'^1) ⊙ u^1,    a_t^j = m_t^j([u'^j ; f^(j-1)(a_t^(j-1))]) ⊙ u^j,    j ≥ 2,

    where the mask m is 1x1, BN, ReLU, 1x1, BN, sigmoid, and the refinement f, which all tasks share, is
    a bottleneck block followed by max pooling where the next stage halves the size. A stage that is a
    single block has u in the place of u'. The heads read a_t^j instead of the encoder's features.

    Args:
        backbone: timm name of a residual network, or a module that returns a list of its features.
        tasks: any; auxiliary ones have masks and heads too, and are in ``Output.intermediate``.
        reduction: channels of a stage for each hidden channel of its masks.
        head: head of the dense tasks; image tasks have a linear one.
        head_options: options of that head.
        neck: what stands between the attended features and the heads; all tasks share it.
        neck_options: options of the neck.
        output_stride: stride of the coarsest features, 8, 16 or 32; by default the backbone's own.
        backbone_options: keyword arguments of ``timm.create_model``.

    Raises:
        UserError: the backbone is not of a residual family, or has stages of a number of channels that
            is no multiple of 4.
    """

    def __init__(
        self,
        backbone: str | nn.Module,
        tasks: Tasks,
        *,
        reduction: int = 4,
        head: str = "deeplab",
        head_options: dict[str, Any] | None = None,
        neck: str = "none",
        neck_options: dict[str, Any] | None = None,
        output_stride: int | None = None,
        backbone_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(tasks)
        if reduction < 1:
            raise UserError(f"mtan has reduction={reduction}: give a positive number")
        self.encoder = Encoder(
            backbone,
            output_stride=output_stride,
            neck=neck,
            neck_options=neck_options,
            backbone_options=backbone_options,
        )
        self.stages = ResidualStages(self.encoder, "mtan")
        channels, strides = self.stages.channels, self.stages.strides
        if any(number % Bottleneck.expansion for number in channels[1:]):
            raise UserError(
                f"mtan has bottlenecks of a quarter of each stage's channels, and {self.encoder.backbone_pyramid.name} "
                f"has {', '.join(map(str, channels))}: choose a backbone with multiples of {Bottleneck.expansion}"
            )
        self.attention = nn.ModuleList(
            PerTask(
                {
                    task: attention(number if i == 0 else 2 * number, max(1, number // reduction), number)
                    for task in tasks.all
                }
            )
            for i, number in enumerate(channels)
        )
        self.refinement = nn.ModuleList(
            refinement(channels[i], channels[i + 1], max(1, strides[i + 1] // strides[i]))
            for i in range(self.stages.count - 1)
        )
        self.heads = TaskHeads(self.encoder.pyramid, tasks, head, head_options)

    @property
    def backbone(self) -> nn.Module:
        """The timm model."""
        return self.encoder.backbone

    def encode(self, images: Tensor) -> list[Tensor]:
        """Features of the stem that the pyramid has, if any; then of each stage u' and u, or u if it is one block."""
        value, representation = self.stages.start(images)
        for i in range(self.stages.count):
            outputs = self.stages.run(i, value)
            representation = [*representation, *outputs[-2:]]
            value = outputs[-1]
        return representation

    def decode(
        self, representation: list[Tensor], size: tuple[int, int], tasks: Iterable[str] | None = None
    ) -> Output:
        stem = self.stages.levels.count(None)
        early, rest = representation[:stem], iter(representation[stem:])
        stages = [[next(rest) for _ in range(min(2, number))] for number in self.stages.sizes]
        maps: dict[str, Tensor] = {}
        for task in self.task_set.select(tasks):
            features = self.stages.pyramid(early, self.attend(stages, task), size)
            maps |= self.heads(features, size, [task])
        return self._output(maps)

    def attend(self, stages: Sequence[Sequence[Tensor]], task: str) -> list[Tensor]:
        """Attended features of a task, for each stage.

        Args:
            stages: u' and u of each stage, or u alone.
            task: its name.
        """
        features: list[Tensor] = []
        for i, outputs in enumerate(stages):
            before, whole = outputs[0], outputs[-1]
            if i > 0:
                refined = resize(self.refinement[i - 1](features[-1]), tuple(whole.shape[-2:]))
                before = torch.cat([before, refined], 1)
            features.append(self.attention[i][task](before) * whole)
        return features

    def vandenhende_prefixes(self) -> dict[str, str]:
        prefixes = {"backbone.": "encoder.backbone."}
        for i, masks in enumerate(self.attention):
            for task in self.task_set.main:
                prefixes[f"attention_{i + 1}.{task}."] = f"attention.{i}.{masks.key(task)}."
        for i in range(len(self.refinement)):
            prefixes[f"refine_{i + 1}."] = f"refinement.{i}."
        for task in self.task_set.main:
            prefixes[f"heads.{task}."] = self.heads.vandenhende_prefix(task)
        return prefixes
