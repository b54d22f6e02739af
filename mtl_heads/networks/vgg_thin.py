"""VGG-16 made thin."""

from __future__ import annotations

from typing import Any

from timm.models import generate_default_cfgs, register_model
from torch import nn

from mtl_heads.networks.chain import ChainNetwork, Stage, build_chain, fully_connected, he_initialise

_BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
_GRID = 7


class ThinVGG(ChainNetwork):
    """VGG-16 of which no layer is wider than ω: the thin-ω model of attribute classification.

    Each convolution has min(ω, VGG-16's) channels and the two fully-connected layers have 2ω units
    (Vandenhende, 2022, section 4.4.3, after Lu et al., "Fully-adaptive feature sharing", 2017). With
    ω = 2048 it is VGG-16 itself. Stages end where branches can part: after each of the five blocks, pooling
    included, and after each fully-connected layer. On 224x224 images the first of those reads 7x7
    cells; other sizes are averaged to that.

    Args:
        num_classes: outputs; 0 leaves the last layer out.
        in_chans: channels of the images.
        omega: greatest number of channels of a convolution.
        batch_norm: normalise after each convolution and fully-connected layer, which the original
            VGG-16 does not.
        dense: leave the fully-connected layers out, for dense tasks.
        drop_rate: share of the pooled features dropped in training.
    """

    def __init__(
        self,
        num_classes: int = 40,
        in_chans: int = 3,
        omega: int = 32,
        batch_norm: bool = True,
        dense: bool = False,
        drop_rate: float = 0.0,
    ) -> None:
        stages: list[Stage] = []
        inputs = in_chans
        for i, (width, layers) in enumerate(_BLOCKS):
            width = min(omega, width)
            stages.append(
                Stage(f"block{i + 1}", _block(inputs, width, layers, batch_norm), width, 2 ** (i + 1))
            )
            inputs = width
        if not dense:
            units, nominal = 2 * omega, 32 * _GRID
            stages.append(Stage("fc6", fully_connected(inputs, units, _GRID, batch_norm), units, nominal))
            stages.append(Stage("fc7", fully_connected(units, units, 1, batch_norm), units, nominal))
        super().__init__(stages, num_classes, drop_rate)
        he_initialise(self)


def _block(inputs: int, width: int, layers: int, batch_norm: bool) -> nn.Sequential:
    parts: list[nn.Module] = []
    for _ in range(layers):
        parts.append(nn.Conv2d(inputs, width, 3, padding=1, bias=not batch_norm))
        parts += [nn.BatchNorm2d(width)] if batch_norm else []
        parts.append(nn.ReLU(inplace=True))
        inputs = width
    return nn.Sequential(*parts, nn.MaxPool2d(2, ceil_mode=True))  # a side of one cell stays


default_cfgs = generate_default_cfgs(
    {
        f"vgg16_thin{omega}": {"num_classes": 40, "first_conv": "block1.0", "classifier": "head"}
        for omega in (32, 64)
    }
)


def _build(name: str, omega: int, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    stages = len(_BLOCKS) if options.get("dense") else len(_BLOCKS) + 2
    return build_chain(ThinVGG, name, stages, pretrained, **{"omega": omega, **options})


@register_model
def vgg16_thin32(pretrained: bool = False, **options: Any) -> nn.Module:
    """VGG-16 with ω = 32."""
    return _build("vgg16_thin32", 32, pretrained, options)


@register_model
def vgg16_thin64(pretrained: bool = False, **options: Any) -> nn.Module:
    """VGG-16 with ω = 64."""
    return _build("vgg16_thin64", 64, pretrained, options)
