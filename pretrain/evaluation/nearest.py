"""Exact nearest neighbours by cosine, in features that need not fit into memory."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pretrain.evaluation.samples import CHUNK_BYTES, chunks, unit_rows
from pretrain.neighbors import Search, search_scored


@torch.no_grad()
def nearest(search: Search, queries: np.ndarray, known: np.ndarray, k: int, device: torch.device | str = "cpu",
            chunk_bytes: int = CHUNK_BYTES) -> tuple[Tensor, Tensor]:
    """The k most similar rows for each query.

    What is known is read once, a chunk at a time; each chunk's best are merged with the best so far. So the memory is
    that of three chunks and of the result, whatever the number of rows.

    Args:
        search: an engine of :data:`pretrain.neighbors.NEIGHBORS`.
        queries: float ``[M, C]``, of any length.
        known: float ``[N, C]``, of any length.
        k: at most N.
        device: where it is computed.
        chunk_bytes: size of a chunk of features, and of similarities.

    Returns:
        Cosine similarities float32 ``[M, k]`` and indices int64 ``[M, k]``, most similar first, on the CPU.
    """
    similarity = torch.full((len(queries), k), -torch.inf)
    index = torch.full((len(queries), k), -1)
    for start, rows in chunks(known, chunk_bytes):
        bank = unit_rows(rows, device)
        step = max(1, chunk_bytes // max(4 * len(bank), queries[:1].nbytes))
        for first in range(0, len(queries), step):
            some = slice(first, first + step)
            found = search_scored(search, unit_rows(queries[some], device), bank, min(k, len(bank)))
            both = torch.cat([similarity[some], found[0].float().cpu()], 1)
            similarity[some], order = both.topk(k, dim=1)
            index[some] = torch.cat([index[some], found[1].cpu() + start], 1).gather(1, order)
    return similarity, index
