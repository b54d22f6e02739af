"""SegNet that splits at the end."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mtl_heads.registry import ARCHITECTURES
from mtl_heads.segnet_based import SegNetBased
from mtl_heads.tasks import Tasks


@ARCHITECTURES.register("split_segnet")
class SplitSegNet(SegNetBased):
    """One SegNet whose tasks part at the last layers ("SegNet, Split"; Liu, 2018, section 2.3.2).

    Backbones ``segnet_wide`` and ``segnet_deep`` spend the parameters of MTAN-SegNet's attention on more
    channels or more layers instead.

    Args:
        backbone: ``"segnet"``, ``"segnet_wide"``, ``"segnet_deep"``, or such a module.
        tasks: any.
        head: head of the dense tasks; image tasks have a linear one.
        head_options: options of that head.
        backbone_options: of SegNet; only with a name.
    """

    def __init__(
        self,
        backbone: str | nn.Module,
        tasks: Tasks,
        *,
        head: str = "segnet",
        head_options: dict[str, Any] | None = None,
        backbone_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            backbone, tasks, head=head, head_options=head_options, backbone_options=backbone_options
        )

    @property
    def backbone(self) -> nn.Module:
        """The timm model."""
        return self.encoder.backbone

    def encode(self, images: Tensor, maps: bool | None = None) -> list[Tensor]:
        """What the decoder returns last, if maps are wanted, and what it starts from."""
        encoded = self.network.encode(images)
        decoded = self.network.decode(encoded) if self._wants_maps(maps) else []
        return [*decoded[-1:], encoded.pooled[-1]]

    def task_features(self, representation: list[Tensor], task: str) -> list[Tensor]:
        return representation
