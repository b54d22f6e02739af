"""Fully convolutional head."""

from __future__ import annotations

from torch import Tensor
from torchvision.models.segmentation.fcn import FCNHead

from harness.errors import UserError
from mtl_heads.encoder import Pyramid
from mtl_heads.heads.base import Head
from mtl_heads.registry import HEADS


@HEADS.register("fcn")
class FCN(Head):
    """3x3 to a quarter of the channels, BN, ReLU, dropout, 1x1 (Long et al., 2015, as torchvision has it).

    Args:
        pyramid: shape of the features; the main one is read. It needs at least 4 channels.
        outputs: output channels of the task.
        image: must be False.
    """

    def __init__(self, pyramid: Pyramid, outputs: int, image: bool = False) -> None:
        super().__init__(pyramid, outputs, image)
        inputs = pyramid.channels[pyramid.main]
        if inputs < 4:
            raise UserError(
                f"head 'fcn' needs 4 channels or more, {pyramid.name} has {inputs}: choose another"
            )
        self.layers = FCNHead(inputs, outputs)

    def predict(self, gathered: Tensor) -> Tensor:
        return self.layers(gathered)
