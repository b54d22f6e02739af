"""NDDR-CNN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtl_heads.blocks import PerTask, PooledBatchNorm2d
from mtl_heads.columns import Columns, Exchange
from mtl_heads.registry import ARCHITECTURES
from mtl_heads.tasks import Tasks
from mtl_heads.vandenhende import TaskBlocks


class NddrLayer(Exchange):
    """Neural discriminative dimensionality reduction: every task reduces the maps of all to its own width.

    Concatenation, 1×1 convolution, batch norm, ReLU (Gao et al., "NDDR-CNN", 2019, section 3.1).

    Args:
        tasks: their names.
        channels: of each task's map.
        alpha: first weight between a task's own channels of equal index.
        beta: first weight between channels of equal index of another task and its own.
    """

    def __init__(self, tasks: Sequence[str], channels: int, alpha: float, beta: float) -> None:
        super().__init__()
        self.tasks = list(tasks)
        self.layers = PerTask({task: self._layer(task, channels, alpha, beta) for task in tasks})

    def _layer(self, own: str, channels: int, alpha: float, beta: float) -> nn.Sequential:
        reduction = nn.Conv2d(len(self.tasks) * channels, channels, 1, bias=False)
        identity = torch.eye(channels)
        blocks = [identity * (alpha if task == own else beta) for task in self.tasks]
        with torch.no_grad():
            reduction.weight.copy_(torch.cat(blocks, 1)[..., None, None])
        return nn.Sequential(reduction, PooledBatchNorm2d(channels, momentum=0.05), nn.ReLU(inplace=True))

    def forward(self, maps: dict[str, Tensor], tasks: Sequence[str]) -> dict[str, Tensor]:
        together = torch.cat([maps[task] for task in self.tasks], 1)
        return {task: self.layers[task](together) for task in tasks}


@ARCHITECTURES.register("nddr")
class Nddr(Columns):
    """One network per task, and an NDDR layer after each stage of the encoders.

    It begins best from trained single-task networks (Gao et al. 2019; Vandenhende 2022, section 3.4).

    Args:
        backbone: timm name, or a module that returns a list of features.
        tasks: any.
        alpha: first weight of a task's own features (.9 for NYUD, .8 for PASCAL in Vandenhende 2022).
        beta: first weight of each other task's features (.1 for NYUD, .05 for PASCAL).
        lr_multiplier: of the layers' learning rate; by default the published 100 with SGD, and 1 with optimisers
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

    def exchange(self, channels: int, alpha: float, beta: float) -> NddrLayer:
        return NddrLayer(self.task_set.all, channels, alpha, beta)

    def vandenhende_prefixes(self) -> dict[str, str]:
        prefixes = super().vandenhende_prefixes()
        for i, exchanges in enumerate(self.exchanges):
            for task in self.tasks:
                layers = exchanges[0].layers
                prefixes[f"nddr.layer{i + 1}.layer.{task}."] = f"exchanges.{i}.0.layers.{layers.key(task)}."
        return prefixes

    def vandenhende_blocks(self) -> dict[str, TaskBlocks]:
        return {
            f"exchanges.{i}.0.layers.{PerTask.key(task)}.0.weight": TaskBlocks(
                tuple(self.tasks), 1, f"nddr.layer{i + 1}.layer."
            )
            for i in range(len(self.exchanges))
            for task in self.tasks
        }
