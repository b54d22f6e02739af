"""No neck."""

from __future__ import annotations

from torch import Tensor

from mtl_heads.necks.base import Neck
from mtl_heads.registry import NECKS


@NECKS.register("none")
class NoNeck(Neck):
    """Passes the backbone's features on.

    Args:
        pyramid: shape of the backbone's features.
    """

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        return features
