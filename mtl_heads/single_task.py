"""Single-task network."""

from __future__ import annotations

from typing import Any

from torch import nn

from mtl_heads.baseline import Baseline
from mtl_heads.registry import ARCHITECTURES
from mtl_heads.tasks import Tasks


@ARCHITECTURES.register("single_task")
class SingleTask(Baseline):
    """Backbone and head of one task: what multi-task networks are compared with.

    Args:
        backbone: timm name, or a module that returns a list of features.
        tasks: exactly one.
        head: head of a dense task; an image task has a linear one.
        head_options: options of that head.
        neck: what stands between the backbone and the head.
        neck_options: options of the neck.
        output_stride: stride of the coarsest features, 8, 16 or 32; by default the backbone's own.
        backbone_options: keyword arguments of ``timm.create_model``.

    Raises:
        UserError: there are several tasks.
    """

    def __init__(
        self,
        backbone: str | nn.Module,
        tasks: Tasks,
        *,
        head: str = "deeplab",
        head_options: dict[str, Any] | None = None,
        neck: str = "none",
        neck_options: dict[str, Any] | None = None,
        output_stride: int | None = None,
        backbone_options: dict[str, Any] | None = None,
    ) -> None:
        tasks.require_one("single_task", "baseline")
        super().__init__(
            backbone,
            tasks,
            head=head,
            head_options=head_options,
            neck=neck,
            neck_options=neck_options,
            output_stride=output_stride,
            backbone_options=backbone_options,
        )

    def vandenhende_prefixes(self) -> dict[str, str]:
        return {"backbone.": "encoder.backbone.", "decoder.": self.heads.vandenhende_prefix(self.tasks[0])}
