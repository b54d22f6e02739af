"""ResNets that keep more of the image's size than timm's."""

from __future__ import annotations

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn


class CifarResNet(ResNet):
    """ResNet for 32x32 images: the stem is one 3x3 convolution of stride 1, without pooling.

    The rest is timm's, so strides are 1, 1, 2, 4, 8 (the usual form for CIFAR, as in Chen et al.,
    "A simple framework for contrastive learning", 2020, appendix B.9).

    Args:
        in_chans: channels of the images.
        stem_padding: zeros around the image; some published weights were trained with 2.
        output_stride: stride of the coarsest features; it can only be 8.
        options: of timm's ``ResNet``.
    """

    def __init__(
        self, *, in_chans: int = 3, stem_padding: int = 1, output_stride: int = 8, **options: Any
    ) -> None:
        _only(output_stride, 8)
        super().__init__(in_chans=in_chans, **options)
        width = self.conv1.out_channels
        self.conv1 = nn.Conv2d(in_chans, width, 3, padding=stem_padding, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.maxpool = nn.Identity()
        for feature, stride in zip(self.feature_info, (1, 1, 2, 4, 8), strict=True):
            feature["reduction"] = stride


class TaskonomyResNet(ResNet):
    """ResNet whose last stage does not halve the size, so that features end at stride 16.

    The encoder of the Taskonomy experiments (Vandenhende, 2022, section 4.4.2): "the last stride 2
    convolution" has stride 1. Unlike with an output stride of 16, nothing is dilated. Weights of the
    ordinary ResNet fit.

    Args:
        output_stride: stride of the coarsest features; it can only be 16.
        options: of timm's ``ResNet``.
    """

    def __init__(self, *, output_stride: int = 16, **options: Any) -> None:
        _only(output_stride, 16)
        super().__init__(**options)
        for part in self.layer4[0].modules():
            if getattr(part, "stride", None) in (2, (2, 2)):
                part.stride = (1, 1) if isinstance(part, nn.Conv2d) else 1
        self.feature_info[-1]["reduction"] = 16


def _only(asked: int, own: int) -> None:
    if asked != own:
        raise ValueError(f"its output stride is {own} and not {asked}")


default_cfgs = generate_default_cfgs(
    {
        "resnet18_cifar": {
            "input_size": (3, 32, 32),
            "num_classes": 10,
            "first_conv": "conv1",
            "classifier": "fc",
        },
        "resnet50_taskonomy": {"input_size": (3, 256, 256), "first_conv": "conv1", "classifier": "fc"},
    }
)


@register_model
def resnet18_cifar(pretrained: bool = False, **options: Any) -> nn.Module:
    """ResNet-18 with the stem for 32x32 images."""
    options = {"block": BasicBlock, "layers": (2, 2, 2, 2), **options}
    return build_model_with_cfg(CifarResNet, "resnet18_cifar", pretrained, **options)


@register_model
def resnet50_taskonomy(pretrained: bool = False, **options: Any) -> nn.Module:
    """ResNet-50 that ends at stride 16 without dilation."""
    options = {"block": Bottleneck, "layers": (3, 4, 6, 3), **options}
    return build_model_with_cfg(TaskonomyResNet, "resnet50_taskonomy", pretrained, **options)
