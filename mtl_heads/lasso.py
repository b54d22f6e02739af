"""Fusion network with sparse combinations of block outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import UserError
from mtl_heads.backbones import create_backbone
from mtl_heads.blocks import PerTask
from mtl_heads.encoder import Encoder
from mtl_heads.model import MultiTaskModel
from mtl_heads.output import Output
from mtl_heads.registry import ARCHITECTURES
from mtl_heads.residual import ResidualStages, only_stages
from mtl_heads.task_heads import TaskHeads
from mtl_heads.tasks import Tasks


class UnitCombinations(nn.Module):
    """A row of Λ: for each stage, coefficients of its blocks whose squares add up to 1.

    Args:
        sizes: number of blocks of each stage.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.sizes = list(sizes)
        # Their direction is what counts; alike at first, so that no block is out of the race.
        self.weight = nn.Parameter(torch.ones(sum(sizes)))

    def forward(self) -> list[Tensor]:
        """Coefficients ``[M]`` for each stage of M blocks."""
        return [F.normalize(part, dim=0) for part in self.weight.split(self.sizes)]


class _Combined(Sequence[Tensor]):
    """Features of which those that are combinations are made when they are first read: most heads read one only.

    Args:
        early: features that come first and are nobody's combination.
        coefficients: of each of the others.
        outputs: of the blocks, for each of the others.
    """

    def __init__(
        self, early: Sequence[Tensor], coefficients: Sequence[Tensor], outputs: Sequence[Sequence[Tensor]]
    ) -> None:
        self.early, self.coefficients, self.outputs = early, coefficients, outputs
        self._made: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.early) + len(self.outputs)

    def __getitem__(self, i: int) -> Tensor:
        if not -len(self) <= i < len(self):
            raise IndexError(f"feature {i} of {len(self)}")
        i %= len(self)
        if i < len(self.early):
            return self.early[i]
        i -= len(self.early)
        if i not in self._made:
            self._made[i] = _combine(self.coefficients[i], self.outputs[i])
        return self._made[i]


def _combine(coefficients: Tensor, outputs: Sequence[Tensor]) -> Tensor:
    """Σ_m Λ_m u_m, ``[B, C, h, w]``."""
    total, *others = (c * u for c, u in zip(coefficients, outputs, strict=True))
    return sum(others, total)


@ARCHITECTURES.register("lasso")
class Lasso(MultiTaskModel):
    """A shared encoder; each task reads a sparse combination of the outputs of its residual blocks.

    Doersch and Zisserman, "Multi-task self-supervised visual learning", 2017, as in Liu, 2018, section
    2.2.1: the head of task k reads Σ_m Λ_km u_m, where u_m is the output of block m of a stage,
    Σ_m Λ_km² = 1, and an L1 penalty on Λ is added to the losses. The combination stands in the place of
    the stage's feature. The paper has one stage, the third of ResNet-101 (``stages=[3]``); by default
    every feature of the pyramid is combined of its own stage's blocks, so that any head has what it reads.

    Args:
        backbone: timm name of a residual network, or a module that returns a list of its features.
        tasks: any; auxiliary ones have combinations and heads too, and are in ``Output.intermediate``.
        penalty_weight: of Σ_m |Λ_km|, which is added to the loss of task k.
        stages: numbers, from 1, of the stages whose combinations are the pyramid; the backbone ends after
            the last of them. By default those of the backbone's features.
        head: head of the dense tasks; image tasks have a linear one.
        head_options: options of that head.
        neck: what stands between the combinations and the heads; all tasks share it.
        neck_options: options of the neck.
        output_stride: stride of the coarsest features, 8, 16 or 32; by default the backbone's own.
        backbone_options: keyword arguments of ``timm.create_model``.

    Raises:
        UserError: the backbone is not of a residual family, it has no such stages, or the weight is negative.
    """

    def __init__(
        self,
        backbone: str | nn.Module,
        tasks: Tasks,
        *,
        penalty_weight: float = 0.001,
        stages: list[int] | None = None,
        head: str = "deeplab",
        head_options: dict[str, Any] | None = None,
        neck: str = "none",
        neck_options: dict[str, Any] | None = None,
        output_stride: int | None = None,
        backbone_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(tasks)
        if not penalty_weight >= 0:
            raise UserError(f"lasso has penalty_weight={penalty_weight}: give a number that is not negative")
        if stages is not None:
            if isinstance(backbone, str):
                backbone = create_backbone(backbone, output_stride, backbone_options)
                output_stride = backbone_options = None
            backbone = only_stages(backbone, stages, "lasso")
        self.encoder = Encoder(
            backbone,
            output_stride=output_stride,
            neck=neck,
            neck_options=neck_options,
            backbone_options=backbone_options,
        )
        self.stages = ResidualStages(self.encoder, "lasso")
        self.combined = [level for level in self.stages.levels if level is not None]
        if not self.combined:
            raise UserError("lasso combines the blocks of stages, and no feature is one's end: change out_indices")
        sizes = [self.stages.sizes[level] for level in self.combined]
        self.combinations = PerTask({task: UnitCombinations(sizes) for task in tasks.all})
        self.penalty_weight = penalty_weight
        self.heads = TaskHeads(self.encoder.pyramid, tasks, head, head_options)

    @property
    def backbone(self) -> nn.Module:
        """The timm model."""
        return self.encoder.backbone

    def encode(self, images: Tensor) -> list[Tensor]:
        """Features of the stem that the pyramid has, if any; then the outputs of the blocks that are combined."""
        value, representation = self.stages.start(images)
        for i in range(self.stages.count):
            outputs = self.stages.run(i, value)
            representation = [*representation, *(outputs if i in self.combined else [])]
            value = outputs[-1]
        return representation

    def decode(
        self, representation: list[Tensor], size: tuple[int, int], tasks: Iterable[str] | None = None
    ) -> Output:
        stem = self.stages.levels.count(None)
        early, rest = representation[:stem], iter(representation[stem:])
        outputs = [[next(rest) for _ in range(self.stages.sizes[level])] for level in self.combined]
        maps: dict[str, Tensor] = {}
        for task in self.task_set.select(tasks):
            features = self.encoder.finish(_Combined(early, self.combinations[task](), outputs), size)
            maps |= self.heads(features, size, [task])
        return self._output(maps)

    def penalty(
        self, tasks: Iterable[str] | None = None, losses: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        return {
            task: self.penalty_weight * sum(part.abs().sum() for part in self.combinations[task]())
            for task in self.task_set.select(tasks)
        }
