"""PAP-Net."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from harness.errors import UserError
from mtl_heads.affinity import AffinityDistillation
from mtl_heads.registry import ARCHITECTURES
from mtl_heads.single_scale import SingleScale
from mtl_heads.tasks import Tasks


@ARCHITECTURES.register("pap_net")
class PapNet(SingleScale):
    """Pattern-affinitive propagation network (Zhang et al., 2019; thesis, section 3.1.3, equation 3.3).

    Every task, auxiliary ones included, makes an initial prediction. The affinities between the pixels of
    each task's features are mixed across tasks, with weights that each task learns, and diffused back
    into its features before the final prediction.

    Args:
        backbone: timm name, or a module that returns a list of features.
        tasks: at least one that predicts a map; image tasks have a linear head.
        grid: cells of the longer side of the grid on which affinities are computed: they take memory for
            ``grid ** 4`` numbers per task and image at most.
        steps: steps of the diffusion.
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
        grid: int = 32,
        steps: int = 2,
        channels: int = 256,
        features: Literal["auto", "main", "all"] = "auto",
        neck: str = "none",
        neck_options: dict[str, Any] | None = None,
        output_stride: int | None = None,
        backbone_options: dict[str, Any] | None = None,
    ) -> None:
        if grid < 1 or steps < 1:
            raise UserError(f"PapNet has grid={grid} and steps={steps}: give positive numbers")
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
        self.distillation = AffinityDistillation(
            tasks.dense, self.map_tasks, channels, grid=grid, steps=steps
        )
