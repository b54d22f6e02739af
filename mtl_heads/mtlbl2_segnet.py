"""Second baseline of the attention network on SegNet."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from mtl_heads.blocks import PerTask
from mtl_heads.networks.segnet import unpool
from mtl_heads.registry import ARCHITECTURES
from mtl_heads.segnet_attention import attention_networks
from mtl_heads.segnet_based import SegNetBased
from mtl_heads.tasks import Tasks


@ARCHITECTURES.register("mtlbl2_segnet")
class MTLBL2SegNet(SegNetBased):
    """The encoder of MTAN-SegNet, then per task an ordinary SegNet decoder (MTLBL2-SegNet).

    Liu, "Universal representations" (2018), section 2.3.2, figure 2.7b. A decoder starts from its task's
    attended features and unpools at the places of the shared encoder; there is no shared decoder.

    Args:
        backbone: ``"segnet"``, or such a module; the task decoders start as copies of its decoder.
        tasks: any.
        head: head of the dense tasks; image tasks have a linear one.
        head_options: options of that head.
        f_reduction: shared channels per channel of the layer f on the attended features.
        g_reduction: shared channels per channel of the layer g inside the mask.
        backbone_options: of SegNet; only with a name.
    """

    def __init__(
        self,
        backbone: str | nn.Module,
        tasks: Tasks,
        *,
        head: str = "segnet",
        head_options: dict[str, Any] | None = None,
        f_reduction: int = 4,
        g_reduction: int = 2,
        backbone_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            backbone, tasks, head=head, head_options=head_options, backbone_options=backbone_options
        )
        channels = self.network.channels
        self.encoder_attention = attention_networks(
            tasks.all, channels, channels, up=False, f_reduction=f_reduction, g_reduction=g_reduction
        )
        self.decoders = PerTask({task: copy.deepcopy(self.network.decoder) for task in self.map_tasks})
        self.network.decoder = nn.ModuleList()

    def encode(self, images: Tensor, maps: bool | None = None) -> list[Tensor]:
        """Of each shared block the features before pooling, after it, and their places (int64)."""
        return [value for block in zip(*self.network.encode(images), strict=True) for value in block]

    def task_features(self, representation: list[Tensor], task: str) -> list[Tensor]:
        before, pooled, places = representation[::3], representation[1::3], representation[2::3]
        deepest = features = self.encoder_attention[task](before, pooled)
        if task not in self.map_tasks:
            return [deepest]
        for block, where, like in zip(self.decoders[task], places[::-1], before[::-1], strict=True):
            features = block(unpool(features, where, like))
        return [features, deepest]
