"""Feature pyramid network."""

from __future__ import annotations

from torch import Tensor
from torchvision.ops import FeaturePyramidNetwork

from harness.errors import UserError
from mtl_heads.necks.base import Neck
from mtl_heads.registry import NECKS


@NECKS.register("fpn")
class Fpn(Neck):
    """Top-down pathway with lateral connections (Lin et al., "Feature pyramid networks", 2017).

    Args:
        pyramid: shape of the backbone's features, at least two scales.
        channels: of every feature that it returns.

    Raises:
        UserError: the backbone has one scale only.
    """

    def __init__(self, pyramid, *, channels: int = 256) -> None:
        pyramid.require_scales("neck 'fpn'")
        if channels < 1:
            raise UserError(f"neck 'fpn' has {channels} channels: give a positive number")
        name = f"the fpn of {pyramid.name}"
        super().__init__(pyramid._replace(channels=(channels,) * len(pyramid.strides), main=0, name=name))
        self.fpn = FeaturePyramidNetwork(list(pyramid.channels), channels)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        return list(self.fpn({str(i): feature for i, feature in enumerate(features)}).values())
