"""How differently a network represents images: representation dissimilarity matrices."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from harness.errors import UserError

Batches = Callable[[int], Iterable[list[Tensor]]]
"""From the number of an image: the features, one ``[B, …]`` for each location, of batches of images from it on."""


def representation_dissimilarity(batches: Batches, images: int, memory: float = 2.0) -> Tensor:
    """1 − Pearson's correlation of the features of any two images, at each location.

    Source: Vandenhende 2022, section 4.3.1. Rows of features are not kept for all images when they
    do not fit: then those of a block of images are, and the later images are run once more for
    each block.

    Args:
        batches: called with the number of an image, always the first of a batch.
        images: K, how many there are.
        memory: GiB for the features that are kept.

    Returns:
        ``[D, K (K - 1) / 2]``: of each location the upper triangle, row by row. Where all features of an
        image are equal it correlates with none.

    Raises:
        UserError: fewer than three images, of which no two pairs could be compared.
    """
    if images < 3:
        raise UserError(f"{images} images are too few to compare representations: give three or more")
    correlation: Tensor | None = None
    start, block = 0, images
    while start < images:
        kept: list[list[Tensor]] = []
        held, at = 0, start
        for features in batches(start):
            rows = [standardised(values) for values in features]
            count = len(rows[0])
            if correlation is None:
                correlation = rows[0].new_zeros(len(rows), images, images)
                floats = sum(row.shape[1] for row in rows)
                block = max(count, int(memory * 2**28 / floats) // count * count)
            if held < block:  # the block is filled with whole batches
                kept.append(rows)
                held += count
            for location, row in enumerate(rows):
                seen = start
                for other in (part[location] for part in kept):
                    correlation[location, seen : seen + len(other), at : at + count] = other @ row.T
                    seen += len(other)
            at += count
        start += held
    first, second = torch.triu_indices(images, images, 1, device=correlation.device)
    return (1 - correlation[:, first, second]).clamp_(0, 2)


def standardised(features: Tensor) -> Tensor:
    """Each image's features as one row ``[B, F]`` with mean 0 and length 1; zeros where they are all equal."""
    rows = features.flatten(1).float()
    mean = rows.mean(1, dtype=torch.float64, keepdim=True)
    centred = rows - mean.float()
    length = centred.norm(dim=1, keepdim=True)
    nothing = length <= 1e-6 * rows.norm(dim=1, keepdim=True)
    return torch.where(nothing, 0.0, centred / length.clamp_min(torch.finfo(torch.float32).tiny))
