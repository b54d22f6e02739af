"""Weighted votes of nearest neighbours.

Source: Wu et al. (2018), Unsupervised feature learning via non-parametric instance discrimination, section 3.4.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pretrain.neighbors import TorchSearch


def knn_votes(train: Tensor, labels: Tensor, queries: Tensor, classes: int, k: int,
              temperature: float = 0.07) -> Tensor:
    """Votes of the k nearest training features, as :func:`weighted_votes`.

    Args:
        train: ``[N, C]``, L2-normalised.
        labels: int64 ``[N]``.
        queries: ``[M, C]``, L2-normalised.
        classes: number of classes.
        k: neighbours; at most N are used.
        temperature: τ.

    Returns:
        ``[M, classes]``.
    """
    similarity, nearest = TorchSearch().scored(queries, train, min(k, len(train)))
    return weighted_votes(similarity, labels[nearest], classes, temperature)


def weighted_votes(similarity: Tensor, labels: Tensor, classes: int, temperature: float) -> Tensor:
    """The sum of exp(similarity / τ) over each query's neighbours of each class.

    Args:
        similarity: ``[M, k]``, the most similar first.
        labels: int64 ``[M, k]``, the neighbours' classes.
        classes: number of classes.
        temperature: τ.

    Returns:
        ``[M, classes]``, relative to the vote of the query's nearest neighbour, so that no τ is too small.
    """
    weights = ((similarity - similarity[:, :1]) / temperature).exp()
    return torch.zeros(len(labels), classes, dtype=weights.dtype, device=weights.device).scatter_add_(
        1, labels, weights)
