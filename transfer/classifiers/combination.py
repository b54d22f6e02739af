"""A classifier made of another one's rows."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Neighbors(NamedTuple):
    """The most similar source classes of each target class, most similar first.

    Args:
        indices: ``[N, K]``.
        coefficients: ``[N, K]``; they add up to 1, or are all 0 for a class that has no similar one.
    """

    indices: Tensor
    coefficients: Tensor


def nearest(similarities: Tensor, neighbors: int) -> Neighbors:
    """The K most similar source classes, weighed by similarity: sim(i, j) / Σ_j sim(i, j).

    Of equally similar classes the first ones are taken. What is not similar (0 or less) has no weight, so that a
    class may have fewer than K.

    Args:
        similarities: ``[N, M]``.
        neighbors: K; all where there are fewer.
    """
    ordered = similarities.clamp_min(0).sort(dim=1, descending=True, stable=True)
    values = ordered.values[:, :neighbors]
    total = values.sum(1, keepdim=True)
    return Neighbors(ordered.indices[:, :neighbors], torch.where(total > 0, values / total, 0.0))


def combine(rows: Tensor, chosen: Neighbors) -> Tensor:
    """W'_i = Σ_j coefficient_ij W_j over the neighbours (Pascal 2021, section A.3.2).

    Args:
        rows: W ``[M, …]``.
        chosen: from :func:`nearest`.

    Returns:
        ``[N, …]`` like ``rows``; zeros for a class that has no similar one.
    """
    taken = rows[chosen.indices.to(rows.device)]
    return torch.einsum("nk,nk...->n...", chosen.coefficients.to(taken), taken)
