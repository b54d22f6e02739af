"""SegNet's prediction layers."""

from __future__ import annotations

from torch import Tensor, nn

from mtl_heads.encoder import Pyramid
from mtl_heads.heads.base import Head
from mtl_heads.registry import HEADS


@HEADS.register("segnet")
class SegNetHead(Head):
    """3x3 at the same width, then 1x1, nothing in between (Pascal, 2021, section 3.4.4).

    Args:
        pyramid: shape of the features; the main one is read.
        outputs: output channels of the task.
        image: must be False.
    """

    def __init__(self, pyramid: Pyramid, outputs: int, image: bool = False) -> None:
        super().__init__(pyramid, outputs, image)
        width = pyramid.channels[pyramid.main]
        self.layers = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, outputs, 1))

    def predict(self, gathered: Tensor) -> Tensor:
        return self.layers(gathered)
