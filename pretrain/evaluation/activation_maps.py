"""Class activation maps, and how much of an object they cover."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def activation_maps(features: Tensor, weight: Tensor) -> Tensor:
    """What each place of a map adds to scores that are linear in the mean of the map (Zhou et al., 2016).

    Args:
        features: ``[C, h, w]``.
        weight: of the linear classifier, ``[P, C]``.

    Returns:
        ``[P, h, w]``; the mean over places is the score but for the bias.
    """
    return torch.einsum("pc,chw->phw", weight, features.to(weight.dtype))


def interpolate(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinearly to the size of the image: ``[P, h, w]`` -> ``[P, H, W]``."""
    return F.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]


def coverage(maps: Tensor, objects: Tensor, top: float) -> Tensor:
    """Share of each object that the highest pixels of its map cover.

    Pixels that tie at the border of the highest ones count by the share of them that there is still room for; so a
    constant map covers ``top`` of every object.

    Args:
        maps: ``[P, H, W]``.
        objects: bool ``[P, H, W]``, none empty.
        top: share of an image's pixels that are the highest ones, above 0 and below 1.

    Returns:
        float64 ``[P]``, from 0 to 1.
    """
    maps, objects = maps.flatten(1), objects.flatten(1)
    count = max(1, round(top * maps.shape[1]))
    border = maps.kthvalue(maps.shape[1] - count + 1, dim=1, keepdim=True).values
    above, tied = maps > border, maps == border
    room = (count - above.sum(1)).double() / tied.sum(1)
    covered = (above & objects).sum(1) + room * (tied & objects).sum(1)
    return covered / objects.sum(1)
