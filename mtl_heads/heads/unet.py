"""Decoder of a U-Net."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mtl_heads.encoder import Pyramid
from mtl_heads.heads.base import Head
from mtl_heads.registry import HEADS
from mtl_heads.unet import UNetDecoder


@HEADS.register("unet")
class UNetHead(Head):
    """The decoder of a U-Net and a 1x1 convolution (Ronneberger et al., "U-Net", 2015, section 2).

    With architecture ``single_task`` it is a U-Net for one task; architecture ``unet`` has one decoder for
    all tasks.

    Args:
        pyramid: shape of the features, at least two scales; all are read.
        outputs: output channels of the task.
        image: must be False.
        channels: of the decoder's stages, coarse to fine; by default those of the features at the same strides.

    Raises:
        UserError: the features have one scale only, or there are not as many channels as stages.
    """

    finest_stride = 1

    def __init__(
        self, pyramid: Pyramid, outputs: int, image: bool = False, *, channels: Sequence[int] | None = None
    ) -> None:
        super().__init__(pyramid, outputs, image)
        self.decoder = UNetDecoder(pyramid, channels)
        self.last_layer = nn.Conv2d(self.decoder.outputs, outputs, 1)

    def gather(self, features: list[Tensor]) -> list[Tensor]:
        return features

    def predict(self, gathered: list[Tensor]) -> Tensor:
        return self.last_layer(self.decoder(gathered))
