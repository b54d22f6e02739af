"""Counts of binary predictions at many thresholds at once."""

from __future__ import annotations

import torch
from torch import Tensor


def threshold_counts(
    score: Tensor, target: Tensor, thresholds: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """True and false positives of ``score >= threshold`` in each image.

    One histogram over threshold intervals replaces a comparison of every pixel with every threshold.

    Args:
        score: ``[B, …]``.
        target: ``[B, …]``, 0 or 1; anything else is ignored.
        thresholds: ``[T]``, ascending.

    Returns:
        int64: true positives ``[B, T]``, false positives ``[B, T]``, and the numbers of labelled
        negatives and positives ``[B, 2]``.
    """
    batch, levels = len(score), len(thresholds) + 1
    label = target.flatten(1).long()
    label = torch.where((label == 0) | (label == 1), label, 2)
    passed = torch.bucketize(score.flatten(1), thresholds, right=True)  # how many it reaches
    image = torch.arange(batch, device=score.device)[:, None]
    counts = torch.bincount(((image * levels + passed) * 3 + label).flatten(), minlength=batch * levels * 3)
    counts = counts.view(batch, levels, 3)[..., :2]
    reached = counts.flip(1).cumsum(1).flip(1)  # [B, levels, 2]: pixels that reach at least so many
    return reached[:, 1:, 1], reached[:, 1:, 0], reached[:, 0]
