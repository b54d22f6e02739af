"""Gradients rotated and scaled as little as makes them orthogonal and equally long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from transfer.strategies.base import GramianBalance
from transfer.strategies.registry import BALANCES


@BALANCES.register("aligned_mtl")
class AlignedMTL(GramianBalance):
    """The mean of the gradients' nearest system with condition number 1.

    With G = V Λ Vᵀ the Gramian, weights are σ V Λ^(−1/2) Vᵀ 1/T over the non-zero eigenvalues (Senushkin et al.
    2023, "Independent Component Alignment for Multi-Task Learning", algorithm 1); TorchJD computes them.

    Args:
        tasks: names of the tasks.
        scale_mode: σ² is the least (min), median or mean (rmse) of the non-zero eigenvalues.
    """

    def __init__(self, tasks: Sequence[str], scale_mode: Literal["min", "median", "rmse"] = "min") -> None:
        from torchjd.aggregation import AlignedMTLWeighting

        super().__init__(tasks)
        self.weighting = AlignedMTLWeighting(scale_mode=scale_mode)

    def weights(self, gramian: Tensor, losses: Tensor | None = None) -> Tensor:
        return self.weighting(_without_rounding(gramian.detach()))


def _without_rounding(gramian: Tensor) -> Tensor:
    """Eigenvalues that are only the rounding of products in float32 set to zero.

    They come from tasks whose gradients depend on each other, and would become the scale of all.
    """
    values, vectors = torch.linalg.eigh(gramian)
    rounding = len(values) * torch.finfo(torch.float32).eps * values[-1].clamp(min=0)
    return (vectors * values.where(values > rounding, 0)) @ vectors.T
