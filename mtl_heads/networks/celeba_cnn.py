"""Nine-layer network for face attributes."""

from __future__ import annotations

from typing import Any

from timm.models import generate_default_cfgs, register_model
from torch import nn

from mtl_heads.blocks import conv_bn_relu
from mtl_heads.networks.chain import ChainNetwork, Stage, build_chain, fully_connected, he_initialise

_WIDTHS = (64, 128, 256, 512)  # of the convolutional stages: one layer, then two each


class CelebaCNN(ChainNetwork):
    """Nine layers for 64x64 faces: seven 3x3 convolutions, then two 1x1 on their mean.

    The shallow network of Pascal (2021, section 4.3.3, after Chen et al., "Just pick a sign", 2020);
    each task adds a fully-connected layer of its own. The text gives the number of layers only; widths
    double with each halving of the size, as is usual for this data. All layers have batch norm and ReLU.

    Args:
        num_classes: outputs; 0 leaves the last layer out.
        in_chans: channels of the images.
        width: channels of the first layer.
        dense: leave the two layers on the mean out, for dense tasks.
        drop_rate: share of the pooled features dropped in training.
    """

    def __init__(
        self,
        num_classes: int = 40,
        in_chans: int = 3,
        width: int = 64,
        dense: bool = False,
        drop_rate: float = 0.0,
    ) -> None:
        stages: list[Stage] = []
        inputs = in_chans
        for i, wide in enumerate(_WIDTHS):
            outputs = wide * width // _WIDTHS[0]
            layers = [conv_bn_relu(inputs, outputs, 3)]
            if i:  # the size is halved between stages
                layers = [nn.MaxPool2d(2, ceil_mode=True), *layers, conv_bn_relu(outputs, outputs, 3)]
            stages.append(Stage(f"stage{i + 1}", nn.Sequential(*layers), outputs, 2**i))
            inputs = outputs
        if not dense:
            stages += [
                Stage(f"fc{i}", fully_connected(inputs, inputs, batch_norm=True), inputs, 64) for i in (1, 2)
            ]
        super().__init__(stages, num_classes, drop_rate)
        he_initialise(self)


default_cfgs = generate_default_cfgs(
    {
        "celeba_cnn9": {
            "input_size": (3, 64, 64),
            "num_classes": 40,
            "first_conv": "stage1.0.0",
            "classifier": "head",
        }
    }
)


@register_model
def celeba_cnn9(pretrained: bool = False, **options: Any) -> nn.Module:
    """Nine layers, 64 to 512 channels."""
    stages = len(_WIDTHS) + (0 if options.get("dense") else 2)
    return build_chain(CelebaCNN, "celeba_cnn9", stages, pretrained, **options)
