"""How far a point is missed."""

from __future__ import annotations

import torch
from torch import Tensor

from transfer.metrics.base import SetMetric, ratio
from transfer.metrics.units import PIXELS


class Localization(SetMetric):
    """Mean distance between the centres of mass of predicted and true maps, over the labelled images of a set.

    Source: Pascal 2021, section 5.3 (fovea). A map without any mass stands for the middle of the picture. An image
    has a label when its map has mass.

    Args:
        floor: share of a predicted map's maximum below which its values do not count.
    """

    units = {"distance": PIXELS}

    def __init__(self, floor: float = 0.0) -> None:
        super().__init__()
        self.floor = floor
        self.add_sum("images")
        self.add_sum("total", dtype=torch.float64)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add maps ``[B, 1, H, W]`` and labels ``[B, H, W]``; images whose label has no value above 0 are ignored."""
        found, truth = center_of_mass(prediction[:, 0], self.floor), center_of_mass(target)
        middle = truth.new_tensor([target.shape[-1] / 2, target.shape[-2] / 2])
        distance = (torch.where(found.isfinite(), found, middle) - truth).square().sum(1).sqrt()
        known = truth.isfinite().all(1)
        self.images += known.sum()
        self.total += torch.where(known, distance, 0.0).sum()

    def compute(self) -> dict[str, float]:
        """``{"distance"}`` in pixels of the label."""
        return {"distance": float(ratio(self.total, self.images))}


def center_of_mass(maps: Tensor, floor: float = 0.0) -> Tensor:
    """Centres of mass of maps.

    Args:
        maps: ``[B, H, W]``; values below 0 have no mass.
        floor: share of a map's maximum below which values have none either.

    Returns:
        float64 ``[B, 2]``, x and y in pixels from the corner, where a pixel's centre is at ½; ``nan`` without mass.
    """
    mass = maps.double().clamp_min(0)
    mass = mass * (mass >= floor * mass.amax((1, 2), keepdim=True))
    x = torch.arange(maps.shape[2], device=maps.device, dtype=torch.float64) + 0.5
    y = torch.arange(maps.shape[1], device=maps.device, dtype=torch.float64) + 0.5
    columns, rows = mass.sum(1), mass.sum(2)
    return torch.stack([(columns * x).sum(1), (rows * y).sum(1)], 1) / columns.sum(1, keepdim=True)
