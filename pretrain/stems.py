"""ResNets for small images, as self-supervised libraries train them on CIFAR: timm has none.

The networks of ``mtl_heads`` have the same stem. Neither package imports the other, so that each can be used alone; a
test holds the two to the same names and numbers.
"""

from __future__ import annotations

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn

_SHAPES = {
    "cifar_resnet18": (BasicBlock, (2, 2, 2, 2)),
    "cifar_resnet34": (BasicBlock, (3, 4, 6, 3)),
    "cifar_resnet50": (Bottleneck, (3, 4, 6, 3)),
}
CIFAR_RESNETS = {name: layers for name, (_, layers) in _SHAPES.items()}
"""Their names, and the blocks of each stage."""


class SmallStemResNet(ResNet):
    """A ResNet whose stem is one 3×3 convolution of stride 1 without pooling (Chen et al. 2020, appendix B.9).

    Args:
        in_chans: channels of the images.
        stem_padding: zeros around the image; solo-learn pads by 2, others by 1.
        output_stride: stride of the coarsest features; it can only be 8.
        options: of timm's ``ResNet``.
    """

    def __init__(self, *, in_chans: int = 3, stem_padding: int = 1, output_stride: int = 8, **options: Any) -> None:
        if output_stride != 8:
            raise ValueError(f"its output stride is 8 and not {output_stride}")
        super().__init__(in_chans=in_chans, **options)
        self.conv1 = nn.Conv2d(in_chans, self.conv1.out_channels, 3, padding=stem_padding, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.maxpool = nn.Identity()
        for feature, stride in zip(self.feature_info, (1, 1, 2, 4, 8), strict=True):
            feature["reduction"] = stride


_CFG = {"input_size": (3, 32, 32), "num_classes": 10, "first_conv": "conv1", "classifier": "fc"}
default_cfgs = generate_default_cfgs({name: dict(_CFG) for name in CIFAR_RESNETS})


def _build(name: str, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    block, layers = _SHAPES[name]
    return build_model_with_cfg(SmallStemResNet, name, pretrained, **{"block": block, "layers": layers, **options})


@register_model
def cifar_resnet18(pretrained: bool = False, **options: Any) -> nn.Module:
    """ResNet-18 with the stem for 32×32 images."""
    return _build("cifar_resnet18", pretrained, options)


@register_model
def cifar_resnet34(pretrained: bool = False, **options: Any) -> nn.Module:
    """ResNet-34 with the stem for 32×32 images."""
    return _build("cifar_resnet34", pretrained, options)


@register_model
def cifar_resnet50(pretrained: bool = False, **options: Any) -> nn.Module:
    """ResNet-50 with the stem for 32×32 images."""
    return _build("cifar_resnet50", pretrained, options)
