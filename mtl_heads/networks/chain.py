"""Networks that are a plain chain of stages, with timm's interface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from timm.models import build_model_with_cfg
from torch import Tensor, nn

from mtl_heads.blocks import PooledBatchNorm2d


class Stage(NamedTuple):
    """One link of a chain, whose output is a feature of the pyramid.

    Args:
        name: under which the module is in the network.
        module: from ``[B, C, H, W]`` to the same kind.
        channels: of its output.
        stride: input pixels per cell of its output, at the images' nominal size.
    """

    name: str
    module: nn.Module
    channels: int
    stride: int


class ChainNetwork(nn.Module):
    """Stages one after another, the mean over the cells, one linear layer.

    Args:
        stages: in order; at least one.
        num_classes: outputs; 0 leaves the linear layer out.
        drop_rate: share of the pooled features dropped in training.
    """

    def __init__(self, stages: Sequence[Stage], num_classes: int = 1000, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.stage_names = [stage.name for stage in stages]
        for stage in stages:
            self.add_module(stage.name, stage.module)
        self.feature_info = [
            {"num_chs": stage.channels, "reduction": stage.stride, "module": stage.name} for stage in stages
        ]
        self.num_features = self.head_hidden_size = stages[-1].channels
        self.head_drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes)

    def get_classifier(self) -> nn.Module:
        """The linear layer."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new linear layer; there is one way to pool, so ``global_pool`` has no effect."""
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward_features(self, images: Tensor) -> Tensor:
        """Output of the last stage, ``[B, C, h, w]``."""
        features = images
        for name in self.stage_names:
            features = getattr(self, name)(features)
        return features

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """``[B, num_classes]``, or ``[B, C]`` with ``pre_logits``."""
        pooled = self.head_drop(features.mean((2, 3)))
        return pooled if pre_logits else self.head(pooled)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))


def build_chain(network: type, name: str, stages: int, pretrained: bool, **options: Any) -> nn.Module:
    """What an entry of timm's registry returns: the network, or all its stages as a pyramid.

    Args:
        network: a :class:`ChainNetwork`.
        name: of the variant.
        stages: how many there are with these options.
        pretrained: load the weights of the variant's configuration.
        options: of the network and of timm.
    """
    every_stage = {"out_indices": tuple(range(stages))}
    return build_model_with_cfg(network, name, pretrained, feature_cfg=every_stage, **options)


def fully_connected(inputs: int, outputs: int, grid: int = 1, batch_norm: bool = False) -> nn.Sequential:
    """A fully-connected layer with ReLU as a convolution: ``[B, C, H, W]`` to ``[B, outputs, 1, 1]``.

    Features of another size than the layer's are first averaged to it, as torchvision's VGG does, so
    that the network takes images of any size, and is the published one at the published size.

    Args:
        inputs: channels of the features.
        outputs: number of units.
        grid: cells per side that the layer reads.
        batch_norm: normalise before the ReLU.
    """
    layers = [nn.AdaptiveAvgPool2d(grid), nn.Conv2d(inputs, outputs, grid, bias=not batch_norm)]
    norm = [PooledBatchNorm2d(outputs)] if batch_norm else []
    return nn.Sequential(*layers, *norm, nn.ReLU(inplace=True))


def he_initialise(network: nn.Module) -> None:
    """Weights of convolutions from N(0, 2 / fan out), biases zero (He et al., 2015)."""
    for part in network.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
