"""k-means of the places of an image, on an interpolated map that is never made.

Bilinear interpolation is linear: the features of a pixel are a weighted mean of the map's h·w vectors F, so all inner
products, means and distances of pixels follow from the Gram matrix F Fᵀ and from the interpolation of maps of one
channel for each cluster. What an iteration costs therefore does not depend on the number of channels, and nothing of
the size pixels × channels is ever in memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_NOTHING = 1e-12
"""Squared distances below this share of the largest squared length are rounding."""


class InterpolatedMap:
    """The pixels that a map becomes by bilinear interpolation (not aligned at the corners), by their inner products.

    Args:
        features: ``[C, h, w]``.
        size: H and W.
        unit_length: give every pixel's features length 1.
    """

    def __init__(self, features: Tensor, size: tuple[int, int], unit_length: bool = False) -> None:
        height, width = features.shape[1:]
        self.size, self.shape = tuple(size), (height, width)
        flat = features.double().flatten(1)
        self.gram = flat.T @ flat
        self._rows, self._columns = (_weights(length, count, features.device)
                                     for length, count in zip((height, width), self.size, strict=True))
        squared = self._squared_lengths()
        self.scale = torch.ones_like(squared)
        if unit_length:
            self.scale = squared.clamp(min=torch.finfo(squared.dtype).tiny).rsqrt()
            squared = (squared > 0).to(squared.dtype)
        self.squared_lengths = squared
        """``[H, W]``."""

    def up(self, maps: Tensor) -> Tensor:
        """Interpolate: ``[K, h·w]`` -> ``[K, H, W]``; times :attr:`scale`, products with the pixels."""
        return self._rows @ maps.unflatten(1, self.shape) @ self._columns.T * self.scale

    def down(self, weights: Tensor) -> Tensor:
        """Sums of pixels as sums of the map's vectors: ``[K, H, W]`` weights of pixels -> ``[K, h·w]``."""
        return (self._rows.T @ (weights * self.scale) @ self._columns).flatten(1)

    def _squared_lengths(self) -> Tensor:
        """Of every pixel, from the four vectors that it is made of."""
        (top, low), (left, right) = (_neighbours(weights) for weights in (self._rows, self._columns))
        corners = [(row[0][:, None] * self.shape[1] + column[0], row[1][:, None] * column[1])
                   for row in (top, low) for column in (left, right)]
        total = torch.zeros(self.size, dtype=self.gram.dtype, device=self.gram.device)
        for index, (place, weight) in enumerate(corners):
            total += weight.square() * self.gram[place, place]
            for other, share in corners[index + 1 :]:
                total += 2 * weight * share * self.gram[place, other]
        return total.clamp_(min=0)


@dataclass
class Clusters:
    """What :func:`k_means` found.

    Attributes:
        assignment: int64 ``[H, W]``: which cluster each pixel is in.
        weights: float64 ``[K, h·w]``: the mean of each cluster's pixels as a sum of the map's vectors.
        inertia: sum of squared distances from the pixels to their cluster's mean, after each assignment.
    """

    assignment: Tensor
    weights: Tensor
    inertia: list[float] = field(default_factory=list)

    def means(self, features: Tensor) -> Tensor:
        """Mean features of the pixels of each cluster, float32 ``[K, C]``.

        Args:
            features: the map that was clustered, ``[C, h, w]``.
        """
        return (self.weights @ features.double().flatten(1).T).float()


def k_means(features: Tensor, size: tuple[int, int], clusters: int, generator: np.random.Generator,
            iterations: int = 50, unit_length: bool = False) -> Clusters:
    """Lloyd's algorithm from the seeds of k-means++ (Arthur and Vassilvitskii, 2007), in double precision.

    A cluster that loses all its pixels keeps its mean and may win some again; those without any at the end are left
    out, as are those for which there are no distinct pixels left.

    Args:
        features: the map, ``[C, h, w]``.
        size: H and W that it is interpolated to.
        clusters: K.
        generator: of the seeds.
        iterations: at most so many; it stops where no pixel changes its cluster.
        unit_length: cluster directions: every pixel's features are given length 1 first.
    """
    pixels = InterpolatedMap(features, size, unit_length)
    weights = _seeds(pixels, clusters, generator)
    numbers = torch.arange(len(weights), device=weights.device)[:, None, None]
    assignment, inertia = None, []
    for _ in range(iterations):
        products = weights @ pixels.gram
        distances = (products * weights).sum(1)[:, None, None] - 2 * pixels.up(products)  # but for the pixel's length
        nearest, found = distances.min(0)
        inertia.append(max(0.0, (nearest + pixels.squared_lengths).sum().item()))
        settled = assignment is not None and torch.equal(found, assignment)
        if settled:
            break
        assignment = found
        members = (assignment == numbers).to(weights.dtype)
        counts = members.sum((1, 2))
        weights = torch.where(counts[:, None] > 0, pixels.down(members) / counts[:, None].clamp(min=1), weights)
    used, assignment = assignment.unique(return_inverse=True)
    return Clusters(assignment, weights[used], inertia)


def _seeds(pixels: InterpolatedMap, clusters: int, generator: np.random.Generator) -> Tensor:
    """Pixels that are drawn in proportion to their squared distance from those drawn before."""
    limit = _NOTHING * pixels.squared_lengths.max()
    chance = torch.ones_like(pixels.squared_lengths)
    nearest, seeds = None, []
    for _ in range(clusters):
        total = chance.flatten().cumsum(0)
        if total[-1] <= 0:
            break
        draw = torch.tensor([generator.random()], dtype=total.dtype, device=total.device) * total[-1]
        place = torch.searchsorted(total, draw, right=True).clamp(max=total.numel() - 1)
        chosen = torch.zeros_like(chance).flatten().scatter_(0, place, 1).view_as(chance)
        seed = pixels.down(chosen[None])
        products = seed @ pixels.gram
        distance = pixels.squared_lengths + (products * seed).sum() - 2 * pixels.up(products)[0]
        nearest = distance if nearest is None else torch.minimum(nearest, distance)
        chance = torch.where(nearest > limit, nearest, 0)
        seeds.append(seed)
    return torch.cat(seeds)


def _weights(length: int, count: int, device: torch.device) -> Tensor:
    """Matrix of bilinear interpolation along one side, ``[count, length]``."""
    unit = torch.eye(length, dtype=torch.float64, device=device)[None]
    return F.interpolate(unit, size=count, mode="linear", align_corners=False)[0].T.contiguous()


def _neighbours(weights: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The two places with their weights that each row of :func:`_weights` consists of (one, where there is one)."""
    first = (weights > 0).to(torch.int8).argmax(1)
    second = (first + 1).clamp(max=weights.shape[1] - 1)
    share = weights.gather(1, first[:, None])[:, 0]
    return [(first, share), (second, 1 - share)]
