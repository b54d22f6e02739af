"""MGDA's weights, followed with independent samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from transfer.strategies.registry import BALANCES
from transfer.strategies.solvers.simplex import project_onto_simplex
from transfer.strategies.weighing import SimplexBalance, check_range


@BALANCES.register("modo")
class MoDo(SimplexBalance):
    """λ ← Π(λ − γ (J₁J₂ᵀλ + ρλ)), and the gradients are weighted with the new λ.

    Π projects onto the simplex; J₁ and J₂ are the gradients on two independent parts of the batch, so that
    J₁J₂ᵀλ is an unbiased gradient of MGDA's objective ½‖Jᵀλ‖² (Chen et al. 2023, "Three-Way Trade-Off in
    Multi-Objective Learning", algorithm 2).

    Args:
        tasks: names of the tasks.
        gamma: γ, the step size of λ.
        rho: ρ, the regularisation towards equal weights.

    Raises:
        UserError: a number is out of its range.
    """

    draws = 2

    def __init__(self, tasks: Sequence[str], gamma: float = 0.1, rho: float = 0.1) -> None:
        super().__init__(tasks)
        check_range("gamma", gamma, above=True)
        check_range("rho", rho)
        self.gamma = gamma
        self.rho = rho

    def move(self, shares: np.ndarray, gramian: np.ndarray) -> np.ndarray:
        return project_onto_simplex(shares - self.gamma * (gramian @ shares + self.rho * shares))
