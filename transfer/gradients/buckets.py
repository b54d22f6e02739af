"""Sums over the processes of many tensors, a few exchanges for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

#: Bytes that are exchanged at once: as many as torch's data-parallel wrapper takes.
LIMIT = 25 * 2**20


def pooled(values: Sequence[Tensor], pool: Callable[[Tensor], Tensor], limit: int = LIMIT) -> list[Tensor]:
    """Each tensor summed over the processes, which must all give as many, of the same shapes and in the same order.

    Neighbours of one type go together; a tensor that is larger than the limit goes alone.

    Args:
        values: of any shapes.
        pool: sums a tensor over the processes.
        limit: bytes of a bucket.
    """
    found: list[Tensor] = []
    bucket: list[Tensor] = []
    size = 0
    for value in values:
        if bucket and (size + value.nbytes > limit or value.dtype != bucket[0].dtype):
            found += _exchanged(bucket, pool)
            bucket, size = [], 0
        bucket.append(value)
        size += value.nbytes
    return found + _exchanged(bucket, pool) if bucket else found


@torch.no_grad()
def pool_gradients(parameters: Sequence[Tensor], pool: Callable[[Tensor], Tensor]) -> None:
    """Sum ``.grad`` of those parameters that have one over the processes, in place."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    for gradient, total in zip(gradients, pooled(gradients, pool), strict=True):
        gradient.copy_(total)  # in its own memory format


def _exchanged(bucket: list[Tensor], pool: Callable[[Tensor], Tensor]) -> list[Tensor]:
    if len(bucket) == 1:
        return [pool(bucket[0])]
    total = pool(torch.cat([value.reshape(-1) for value in bucket]))
    pieces = total.split([value.numel() for value in bucket])
    return [piece.view(value.shape) for piece, value in zip(pieces, bucket, strict=True)]
