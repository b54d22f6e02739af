"""PAD-Net."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from harness.errors import UserError
from mtl_heads.blocks import PerTask
from mtl_heads.distillation import SpatialAttentionDistillation
from mtl_heads.registry import ARCHITECTURES
from mtl_heads.single_scale import SingleScale
from mtl_heads.tasks import Tasks


@ARCHITECTURES.register("pad_net")
class PadNet(SingleScale):
    """Prediction-and-distillation network (Xu et al., 2018; thesis, section 3.1.3, equation 3.2).

    Every task, auxiliary ones included, makes an initial prediction; the features of all others, each
    gated by a spatial attention mask that it makes of itself, are added to those of every main task
    before its final prediction.

    Args:
        backbone: timm name, or a module that returns a list of features.
        tasks: at least one that predicts a map; image tasks have a linear head.
        distill: ``"paper"``: the mask gates the other task's features (equation 3.2); ``"published"``: it
            gates a convolution of them (the form of equation 5.1), as the published program does.
        channels: of the task features; a multiple of 4.
        features: what the initial predictions read: ``main``: one scale, the backbone's coarsest or the
            neck's finest; ``all``: all scales, concatenated at the finest one's size; ``auto``: main where
            its stride is 8 or finer (dilated backbones, necks), else all (HRNet).
        neck: what stands between the backbone and the task parts.
        neck_options: options of the neck.
        output_stride: stride of the coarsest features, 8, 16 or 32; by default the backbone's own.
        backbone_options: keyword arguments of ``timm.create_model``.

    Raises:
        UserError: no task predicts a map, or an option has another value.
    """

    def __init__(
        self,
        backbone: str | nn.Module,
        tasks: Tasks,
        *,
        distill: Literal["paper", "published"] = "paper",
        channels: int = 256,
        features: Literal["auto", "main", "all"] = "auto",
        neck: str = "none",
        neck_options: dict[str, Any] | None = None,
        output_stride: int | None = None,
        backbone_options: dict[str, Any] | None = None,
    ) -> None:
        if distill not in ("paper", "published"):
            raise UserError(f"PadNet has distill='{distill}': give paper or published")
        super().__init__(
            backbone,
            tasks,
            channels=channels,
            features=features,
            neck=neck,
            neck_options=neck_options,
            output_stride=output_stride,
            backbone_options=backbone_options,
        )
        self.distill = distill
        self.distillation = SpatialAttentionDistillation(
            tasks.dense, self.map_tasks, channels, transform=distill == "published"
        )

    def vandenhende_prefixes(self) -> dict[str, str]:
        if self.distill != "published":
            raise UserError(
                "files of the original code base have a convolution in the distillation: build pad_net with "
                "distill=published"
            )
        key, ours = PerTask.key, "initial_prediction"
        prefixes = {"backbone.": "encoder.backbone."}
        for task in self.map_tasks:
            theirs = "initial_task_prediction_heads"
            prefixes[f"{theirs}.layers.{task}."] = f"{ours}.refinement.{key(task)}."
            prefixes[f"{theirs}.conv_out.{task}."] = f"{ours}.decoders.{key(task)}."
        for task in self.task_set.dense:
            prefixes[f"heads.{task}."] = f"heads.{key(task)}."
        return prefixes | self.distillation.vandenhende_prefixes("multi_modal_distillation.", "distillation.")
