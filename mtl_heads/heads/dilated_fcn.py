"""Fully convolutional head with wide kernels."""

from __future__ import annotations

from torch import Tensor, nn

from harness.errors import UserError
from mtl_heads.blocks import conv_bn_relu
from mtl_heads.encoder import Pyramid
from mtl_heads.heads.base import Head
from mtl_heads.registry import HEADS


@HEADS.register("dilated_fcn")
class DilatedFCN(Head):
    """Two dilated 3x3 convolutions with BN and ReLU, then 1x1: the head that representations are compared with.

    Source: He et al. 2020 (MoCo), "PASCAL VOC semantic segmentation"; Vandenhende (2022), section 7.3.

    Args:
        pyramid: shape of the features; the main one is read.
        outputs: output channels of the task.
        image: must be False.
        width: channels of the two convolutions.
        dilation: of both.
    """

    def __init__(self, pyramid: Pyramid, outputs: int, image: bool = False, *, width: int = 256,
                 dilation: int = 6) -> None:
        super().__init__(pyramid, outputs, image)
        if width < 1 or dilation < 1:
            raise UserError(f"head 'dilated_fcn': width {width} or dilation {dilation} is out of range")
        self.layers = nn.Sequential(
            conv_bn_relu(pyramid.channels[pyramid.main], width, 3, dilation), conv_bn_relu(width, width, 3, dilation),
            nn.Conv2d(width, outputs, 1))

    def predict(self, gathered: Tensor) -> Tensor:
        return self.layers(gathered)
