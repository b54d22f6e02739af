"""Taskonomy's decoder."""

from __future__ import annotations

import math

from torch import Tensor, nn

from harness.errors import UserError
from mtl_heads.blocks import conv_bn_relu
from mtl_heads.encoder import Pyramid
from mtl_heads.heads.base import Head
from mtl_heads.networks.chain import he_initialise
from mtl_heads.registry import HEADS

_DOUBLINGS = 4


@HEADS.register("taskonomy")
class Taskonomy(Head):
    """Fifteen convolutional layers that bring features of stride 16 back to the image's size.

    Five convolutions, then four pairs of a convolution, which halves the channels, and a transposed
    one, which doubles the size; a convolution; the output (Vandenhende, 2022, section 4.4.2, after Zamir et al.,
    "Taskonomy", 2018). All are 3x3, with batch norm and ReLU but for the output. The text does not
    give the channels; with these ones the networks have the parameters of its table 4.2.

    Coarser features end at a sixteenth of their stride; where features are finer than 16, that many
    of the first transposed convolutions are ordinary ones.

    Args:
        pyramid: shape of the features; the main one is read.
        outputs: output channels of the task.
        image: must be False.
        width: channels of the first layer, a multiple of 64; the following have 1/2, 1/4, 1/4, 1/4,
            and the pairs 1/8, 1/16, 1/32, 1/64 of it.
    """

    def __init__(self, pyramid: Pyramid, outputs: int, image: bool = False, *, width: int = 1024) -> None:
        super().__init__(pyramid, outputs, image)
        if width < 64 or width % 64:
            raise UserError(f"head 'taskonomy' has width {width}: give a positive multiple of 64")
        layers: list[nn.Module] = []
        inputs = pyramid.channels[pyramid.main]
        for share in (1, 2, 4, 4, 4):
            layers.append(conv_bn_relu(inputs, width // share, 3))
            inputs = width // share
        doublings = min(_DOUBLINGS, max(0, round(math.log2(pyramid.strides[pyramid.main]))))
        for pair in range(_DOUBLINGS):
            outer = inputs // 2
            layers.append(conv_bn_relu(inputs, outer, 3))
            double = pair >= _DOUBLINGS - doublings
            layers.append(_transposed(outer) if double else conv_bn_relu(outer, outer, 3))
            inputs = outer
        layers.append(conv_bn_relu(inputs, inputs, 3))
        layers.append(nn.Conv2d(inputs, outputs, 3, padding=1))
        self.layers = nn.Sequential(*layers)
        he_initialise(self)

    def predict(self, gathered: Tensor) -> Tensor:
        """``[B, outputs, h, w]``, finer than what was gathered."""
        return self.layers(gathered)


def _transposed(channels: int) -> nn.Sequential:
    """Transposed 3x3 convolution to exactly twice the size, batch norm, ReLU."""
    return nn.Sequential(
        nn.ConvTranspose2d(channels, channels, 3, stride=2, padding=1, output_padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )
