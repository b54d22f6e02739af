"""LeNet."""

from __future__ import annotations

from typing import Any

from timm.models import generate_default_cfgs, register_model
from torch import nn

from mtl_heads.networks.chain import ChainNetwork, Stage, build_chain, fully_connected

_MNIST = {"mean": (0.1307,) * 3, "std": (0.3081,) * 3}


class LeNet(ChainNetwork):
    """Two convolutions and a fully-connected layer of 50 units (LeCun et al., "Gradient-based learning", 1998).

    The form that multi-task papers use on pairs of digits (Sener & Koltun, 2018, section 4.1) and on
    the parity of digits (Wu et al., 2023, section 3.1): 5x5 convolutions without padding, each with 2x2
    maximum pooling and ReLU; all layers but the last are shared. On 28x28 images the fully-connected
    layer reads 4x4 cells; other sizes are averaged to that.

    Args:
        num_classes: outputs; 0 leaves the last layer out.
        in_chans: channels of the images; digits that are kept as one channel take 1.
        widths: channels of the two convolutions.
        hidden: units of the fully-connected layer; 0 leaves it out, for dense tasks.
        grid: cells per side that the fully-connected layer reads: 4 for 28x28, 6 for 36x36.
        drop_rate: share of the pooled features dropped in training.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_chans: int = 3,
        widths: tuple[int, int] = (10, 20),
        hidden: int = 50,
        grid: int = 4,
        drop_rate: float = 0.0,
    ) -> None:
        first, second = widths
        stages = [
            Stage("conv1", _convolution(in_chans, first), first, 2),
            Stage("conv2", _convolution(first, second), second, 4),
        ]
        if hidden:
            stages.append(Stage("fc1", fully_connected(second, hidden, grid), hidden, 28))
        super().__init__(stages, num_classes, drop_rate)


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 5),
        nn.MaxPool2d(2, ceil_mode=True),  # so that a side of one cell stays
        nn.ReLU(inplace=True),
    )


default_cfgs = generate_default_cfgs(
    {
        "lenet": {
            "input_size": (3, 28, 28),
            "num_classes": 10,
            "first_conv": "conv1.0",
            "classifier": "head",
            **_MNIST,
        }
    }
)


@register_model
def lenet(pretrained: bool = False, **options: Any) -> nn.Module:
    """LeNet of 10 and 20 channels and 50 units."""
    return build_chain(LeNet, "lenet", 3 if options.get("hidden", 50) else 2, pretrained, **options)
