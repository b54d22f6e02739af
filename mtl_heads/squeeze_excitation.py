"""Channel gating."""

from __future__ import annotations

from torch import Tensor, nn


class SqueezeExcitation(nn.Module):
    """Scales each channel by a gate that reads the means of all channels (Hu et al., 2018).

    Args:
        channels: of the features.
        reduction: channels for each hidden one.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.squeeze = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, channels), nn.Sigmoid()
        )

    def forward(self, features: Tensor) -> Tensor:
        """``[B, C, h, w]`` from ``[B, C, h, w]``."""
        return features * self.squeeze(features.mean((2, 3)))[:, :, None, None]
