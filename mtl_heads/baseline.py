"""Multi-task baseline."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from mtl_heads.encoder import Encoder
from mtl_heads.model import MultiTaskModel
from mtl_heads.output import Output
from mtl_heads.registry import ARCHITECTURES, HEADS
from mtl_heads.task_heads import TaskHeads
from mtl_heads.tasks import Tasks


@ARCHITECTURES.register("baseline")
class Baseline(MultiTaskModel):
    """A shared encoder and one head per task: hard parameter sharing.

    Auxiliary tasks have heads of their own, and their predictions are in ``Output.intermediate``.

    Args:
        backbone: timm name, or a module that returns a list of features.
        tasks: any.
        head: head of the dense tasks; image tasks have a linear one.
        head_options: options of that head.
        neck: what stands between the backbone and the heads.
        neck_options: options of the neck.
        output_stride: stride of the coarsest features, 8, 16 or 32; by default the backbone's own.
        backbone_options: keyword arguments of ``timm.create_model``.
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
        super().__init__(tasks)
        self.encoder = Encoder(
            backbone,
            output_stride=output_stride,
            neck=neck,
            neck_options=neck_options,
            backbone_options=backbone_options,
            finest_stride=HEADS.get(head).finest_stride,
        )
        self.heads = TaskHeads(self.encoder.pyramid, tasks, head, head_options)

    @property
    def backbone(self) -> nn.Module:
        """The timm model."""
        return self.encoder.backbone

    def encode(self, images: Tensor) -> list[Tensor]:
        return self.encoder(images)

    def decode(
        self, representation: list[Tensor], size: tuple[int, int], tasks: Iterable[str] | None = None
    ) -> Output:
        return self._output(self.heads(representation, size, self.task_set.select(tasks)))

    def vandenhende_prefixes(self) -> dict[str, str]:
        return {"backbone.": "encoder.backbone."} | {
            f"decoders.{task}.": self.heads.vandenhende_prefix(task) for task in self.heads.tasks
        }
