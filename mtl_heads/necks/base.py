"""What all necks have in common."""

from __future__ import annotations

from torch import Tensor, nn


class Neck(nn.Module):
    """Base class: makes one pyramid of another.

    Args:
        pyramid: shape of the features that the neck returns, a :class:`mtl_heads.encoder.Pyramid`.
    """

    def __init__(self, pyramid) -> None:
        super().__init__()
        self.pyramid = pyramid

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """New features, fine to coarse."""
        raise NotImplementedError

    def crop(self, features: list[Tensor], size: tuple[int, int]) -> list[Tensor]:
        """The neck's features without cells that lie wholly beyond an image of ``size``; by default all."""
        return features
