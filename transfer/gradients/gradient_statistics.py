"""What a step's gradients tell: their sizes, their angles, and what the rule made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

#: With more tasks than these, cosines of single pairs are not logged, only their mean.
PAIRS = 10


def gradient_statistics(gramian: Tensor, present: Tensor, names: Sequence[str]) -> dict[str, Any]:
    """Norms, pairwise cosines and the share of conflicting pairs, of the tasks with labels in the batch.

    Args:
        gramian: ``[T, T]``, on the CPU.
        present: ``[T]``, bool.
        names: of the rows.

    Returns:
        ``gradient_norm`` by task; ``cosine`` by pair (``a|b``) for a few tasks; ``mean_cosine`` over the pairs,
        and ``conflicts``, the share of pairs whose inner product is negative, where there is a pair.
    """
    rows = [i for i, there in enumerate(present.tolist()) if there]
    norms = gramian.diagonal().clamp_min(0).sqrt()
    found: dict[str, Any] = {"gradient_norm": {names[i]: float(norms[i]) for i in rows}}
    pairs = [(i, j) for i in rows for j in rows if i < j]
    if not pairs:
        return found
    first, second = torch.tensor(pairs).T
    lengths = norms[first] * norms[second]
    cosines = torch.where(lengths > 0, gramian[first, second] / lengths.clamp_min(1e-300), 0.0)
    if len(names) <= PAIRS:
        found["cosine"] = {f"{names[i]}|{names[j]}": value
                           for (i, j), value in zip(pairs, cosines.tolist(), strict=True)}
    return {**found, "mean_cosine": float(cosines.mean()), "conflicts": float((cosines < 0).double().mean())}
