"""Quantities that tell whether representations collapse."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def effective_rank(features: Tensor) -> Tensor:
    """How many directions the features really use: exp of the entropy of their normalised singular values.

    A collapse of some dimensions only, which the spread of single dimensions does not show, shows here
    (Roy and Vetterli 2007, The effective rank, definition 1, on centred features).

    Args:
        features: ``[N, C]``.

    Returns:
        A scalar between 1 and min(N, C), float32; 1 when all rows are the same.
    """
    with torch.autocast(features.device.type, enabled=False):
        rows = features.float()
        values = torch.linalg.svdvals(rows - rows.mean(0))
        share = values / values.sum().clamp(min=torch.finfo(values.dtype).tiny)
        return torch.special.entr(share).sum().exp()
