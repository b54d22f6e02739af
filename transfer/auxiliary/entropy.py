"""The term against collapsing classes."""

from __future__ import annotations

import torch
from torch import Tensor


def negative_entropy(mean: Tensor) -> Tensor:
    """H = Σ_k ȳ_k log ȳ_k of the labels' mean over a batch, ``[K]`` (Liu 2018, section 3.2.3); least where uniform."""
    return -torch.special.entr(mean).sum()


def negative_entropy_term(labels: Tensor, mean: Tensor, count: Tensor) -> Tensor:
    """A scalar whose gradient, summed over the parts of a batch, is that of :func:`negative_entropy`.

    H is no sum over images, so parts and processes cannot each compute theirs. Its derivative by ȳ_k is log ȳ_k + 1;
    with that as a constant the images' terms add up.

    Args:
        labels: of one part ``[B, K]``, with their graph.
        mean: ȳ over the whole batch ``[K]``.
        count: of labelled images in the whole batch.
    """
    tiny = torch.finfo(mean.dtype).tiny  # a class of which the batch has no image; its labels have no gradient
    slope = mean.detach().clamp_min(tiny).log() + 1
    return (labels.sum(0) / count * slope).sum()
