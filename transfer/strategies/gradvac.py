"""Gradients brought to the similarity that they usually have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from transfer.strategies.base import GramianBalance
from transfer.strategies.registry import BALANCES
from transfer.strategies.solvers.gramian import norms
from transfer.strategies.solvers.surgery import operate
from transfer.strategies.weighing import check_range


@BALANCES.register("gradvac")
class GradVac(GramianBalance):
    """Σ_i g̃_i, each g̃_i turned towards every g_j to which it is less similar than usual.

    For the other tasks j in random order, with φ the cosine of g̃_i and g_j, where φ < φ̂_ij

        g̃_i ← g̃_i + ‖g̃_i‖ (φ̂ √(1 − φ²) − φ √(1 − φ̂²)) / (‖g_j‖ √(1 − φ̂²)) · g_j,

    after which the cosine is φ̂; then φ̂_ij ← (1 − β) φ̂_ij + β φ, starting from 0 (Wang et al. 2021, "Gradient
    Vaccine", equations 4 and 5, algorithm 1, with all shared parameters as one group). Pairs with a gradient
    that is zero are left alone.

    Args:
        tasks: names of the tasks.
        beta: β, the weight of the newest cosine. The paper takes 0.01; 0.5 is that of later programs.

    Raises:
        UserError: beta is not between 0 and 1.
    """

    #: Keeps the multiple finite where a pair has always had the same gradient (φ̂ = 1).
    TINY = 1e-8

    def __init__(self, tasks: Sequence[str], beta: float = 0.5) -> None:
        super().__init__(tasks)
        check_range("beta", beta, 0.0, 1.0)
        self.beta = beta
        self.register_buffer("similarity", torch.zeros(len(self.tasks), len(self.tasks), dtype=torch.float64))

    def weights(self, gramian: Tensor, losses: Tensor | None = None) -> Tensor:
        values = gramian.detach().numpy()
        rows = torch.tensor(self.rows)
        targets = self.similarity[rows[:, None], rows].cpu().numpy()
        lengths, tasks = norms(values), np.arange(len(values))

        def turn(partners: np.ndarray, products: np.ndarray, squares: np.ndarray) -> np.ndarray:
            mine, theirs = np.sqrt(squares), lengths[partners]
            defined = mine * theirs > 0
            cosine = np.divide(products, mine * theirs, out=np.zeros_like(products), where=defined).clip(-1.0, 1.0)
            target = targets[tasks, partners]
            across, target_across = np.sqrt(1.0 - cosine**2), np.sqrt(1.0 - target**2).clip(self.TINY)
            multiple = np.divide(mine * (target * across - cosine * target_across), theirs * target_across,
                                 out=np.zeros_like(products), where=defined & (cosine < target))
            usual = (1.0 - self.beta) * target + self.beta * cosine
            targets[tasks, partners] = np.where(defined, usual, target)
            return multiple

        weights = operate(values, turn)
        self.similarity[rows[:, None], rows] = torch.from_numpy(targets).to(self.similarity)
        return torch.from_numpy(weights)
