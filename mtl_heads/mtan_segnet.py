"""Multi-task attention network on SegNet."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mtl_heads.registry import ARCHITECTURES
from mtl_heads.segnet_attention import attention_networks
from mtl_heads.segnet_based import SegNetBased
from mtl_heads.tasks import Tasks


@ARCHITECTURES.register("mtan_segnet")
class MTANSegNet(SegNetBased):
    """A shared SegNet, and per task an attention module at every block of encoder and decoder (MTAN-SegNet).

    Liu, "Universal representations" (2018), section 2.2.3. A module's features before and after the
    change of resolution are: in the encoder a block's convolutions before and after pooling; in the
    decoder what the block is given, and what it returns at twice the resolution. Image tasks attend to
    the encoder only.

    Args:
        backbone: ``"segnet"``, or such a module.
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
        reductions = {"f_reduction": f_reduction, "g_reduction": g_reduction}
        channels = self.network.channels
        decoded = (*channels[-2::-1], channels[0])  # what each block of the decoder returns
        self.encoder_attention = attention_networks(tasks.all, channels, channels, up=False, **reductions)
        self.decoder_attention = attention_networks(
            self.map_tasks, channels[::-1], decoded, channels[-1], up=True, **reductions
        )

    @property
    def backbone(self) -> nn.Module:
        """The timm model."""
        return self.encoder.backbone

    def encode(self, images: Tensor, maps: bool | None = None) -> list[Tensor]:
        """All shared features: of each encoder block before and after pooling, then of each decoder block."""
        encoded = self.network.encode(images)
        pairs = zip(encoded.before, encoded.pooled, strict=True)
        decoded = self.network.decode(encoded) if self._wants_maps(maps) else []
        return [features for pair in pairs for features in pair] + decoded

    def task_features(self, representation: list[Tensor], task: str) -> list[Tensor]:
        blocks = len(self.network.encoder)
        before, pooled = representation[: 2 * blocks : 2], representation[1 : 2 * blocks : 2]
        deepest = self.encoder_attention[task](before, pooled)
        if task not in self.map_tasks:
            return [deepest]
        decoded = representation[2 * blocks :]
        return [self.decoder_attention[task]([pooled[-1], *decoded[:-1]], decoded, deepest), deepest]
