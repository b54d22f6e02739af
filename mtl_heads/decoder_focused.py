"""What decoder-focused networks have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from harness.errors import UserError
from mtl_heads.blocks import PerTask, resize
from mtl_heads.encoder import Encoder
from mtl_heads.heads.linear import Linear
from mtl_heads.model import MultiTaskModel
from mtl_heads.output import Output
from mtl_heads.tasks import Tasks


class DecoderFocused(MultiTaskModel):
    """Base class of networks that predict every task once, and then again from what all tasks found.

    They share a whole encoder, and tasks interact while they are decoded (thesis, section 3.1.3).
    Predictions before the last are in ``Output.intermediate``, and auxiliary tasks have only those. Main
    tasks' are made in training mode, or where they are asked for: evaluation does not pay for them.
    Image tasks need no such decoding: each has a linear layer on the pooled coarsest features
    (thesis, section 5.4).

    A subclass defines :meth:`decode_dense` and :attr:`intermediate_strides`.

    Args:
        backbone: timm name, or a module that returns a list of features.
        tasks: the tasks, dense ones among them.
        neck: what stands between the backbone and the task parts.
        neck_options: options of the neck.
        output_stride: stride of the coarsest features; by default the backbone's own.
        backbone_options: keyword arguments of ``timm.create_model``.

    Raises:
        UserError: no task predicts a map.
    """

    as_in_training: Mapping[str, Any] = {"intermediate": True}

    def __init__(
        self,
        backbone: str | nn.Module,
        tasks: Tasks,
        *,
        neck: str,
        neck_options: dict[str, Any] | None,
        output_stride: int | None,
        backbone_options: dict[str, Any] | None,
    ) -> None:
        super().__init__(tasks)
        if not self.map_tasks:
            raise UserError(
                f"{type(self).__name__} exchanges features between tasks that predict maps, and "
                f"{', '.join(tasks.image)} predict none: choose 'baseline'"
            )
        self.encoder = Encoder(
            backbone,
            output_stride=output_stride,
            neck=neck,
            neck_options=neck_options,
            backbone_options=backbone_options,
        )
        self.image_heads = PerTask(
            {task: Linear(self.encoder.pyramid, number, image=True) for task, number in tasks.image.items()}
        )

    @classmethod
    def single_task_options(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """With heads that read every scale: those of the thesis's HRNet and FPN networks (table 5.6)."""
        head = "panoptic_fpn" if options.get("neck") == "fpn" else "hrnet"
        return {**super().single_task_options(options), "head": head}

    @property
    def backbone(self) -> nn.Module:
        """The timm model."""
        return self.encoder.backbone

    @property
    def map_tasks(self) -> dict[str, int]:
        """Output channels of the tasks that predict maps: dense ones, then auxiliary ones."""
        return {**self.task_set.dense, **self.task_set.auxiliary}

    @property
    def intermediate_strides(self) -> list[int]:
        """For each entry of ``Output.intermediate``, the stride of the features it was predicted at."""
        raise NotImplementedError

    def forward(self, images: Tensor, tasks: Iterable[str] | None = None, intermediate: bool | None = None) -> Output:
        """Predict.

        Args:
            images: ``[B, C, H, W]``, normalised as the backbone was trained.
            tasks: which tasks to predict; ``None`` means all.
            intermediate: make main tasks' predictions before the last too; ``None``: in training mode.
        """
        tasks = self.task_set.select(tasks)
        return self.decode(self.encode(images), tuple(images.shape[-2:]), tasks, intermediate)

    def encode(self, images: Tensor) -> list[Tensor]:
        return self.encoder(images)

    def decode(
        self,
        representation: list[Tensor],
        size: tuple[int, int],
        tasks: Iterable[str] | None = None,
        intermediate: bool | None = None,
    ) -> Output:
        """Predictions from a representation; ``intermediate`` is as in :meth:`forward`."""
        wanted = self.task_set.select(tasks)
        maps = [task for task in wanted if task in self.map_tasks]
        on_the_way = self.training if intermediate is None else intermediate
        early = [task for task in maps if on_the_way or task in self.task_set.auxiliary]
        final, initial = self.decode_dense(representation, maps, early) if maps else ({}, [])
        predictions = {task: resize(prediction, size) for task, prediction in final.items()}
        image = [task for task in wanted if task in self.task_set.image]
        pooled = representation[-1].mean((2, 3)) if image else None
        predictions |= {task: self.image_heads[task].predict(pooled) for task in image}
        return Output(
            predictions,
            [{task: resize(value, size) for task, value in entry.items()} for entry in initial if entry],
        )

    def decode_dense(
        self, features: list[Tensor], tasks: list[str], early: list[str]
    ) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
        """Final predictions of the main tasks among ``tasks``, and some tasks' predictions before them.

        Maps have the size they were predicted at.

        Args:
            features: what :meth:`encode` returned.
            tasks: tasks that predict maps, at least one.
            early: those of them whose predictions before the last are wanted.
        """
        raise NotImplementedError
