"""MGDA's direction, held near the mean gradient, with independent samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from transfer.strategies.registry import BALANCES
from transfer.strategies.solvers.simplex import project_onto_simplex
from transfer.strategies.weighing import SimplexBalance, check_range


@BALANCES.register("sdmgrad")
class SDMGrad(SimplexBalance):
    """Gradients weighted with (w + λw̃) / (1 + λ), where w lessens ½‖Jᵀw + λJᵀw̃‖² on the simplex, w̃ = 1/T.

    Xiao et al. (2023), "Direction-oriented Multi-objective Learning", algorithm 1: from the w of the step
    before, some steps w ← Π(w − β v) with momentum, v ← m v + A (w + λw̃) and A = J₁J₂ᵀ from two independent
    parts of the batch. As in the authors' program, A is divided by the square of the mean norm of the
    gradients (section 6.1), so that β does not depend on their size, and the sum of weights is brought to 1.

    Args:
        tasks: names of the tasks.
        lambda_: λ, the pull towards the mean gradient.
        lr: β, the step size of w.
        momentum: m.
        iterations: steps of w for each step of the network.

    Raises:
        UserError: a number is out of its range.
    """

    draws = 2

    def __init__(self, tasks: Sequence[str], lambda_: float = 0.3, lr: float = 10.0, momentum: float = 0.5,
                 iterations: int = 20) -> None:
        super().__init__(tasks)
        check_range("lambda_", lambda_)
        check_range("lr", lr, above=True)
        check_range("momentum", momentum, 0.0, 1.0)
        check_range("iterations", iterations, 1)
        self.lambda_ = lambda_
        self.lr = lr
        self.momentum = momentum
        self.iterations = iterations

    def move(self, shares: np.ndarray, gramian: np.ndarray) -> np.ndarray:
        size = np.sqrt(np.maximum(np.diagonal(gramian), 0.0)).mean()
        if size == 0.0:
            return shares
        products, preference = gramian / size**2, self.lambda_ / len(shares)
        velocity = np.zeros_like(shares)
        for _ in range(self.iterations):
            velocity = self.momentum * velocity + products @ (shares + preference)
            shares = project_onto_simplex(shares - self.lr * velocity)
        return shares

    def weights_of(self, shares: Tensor) -> Tensor:
        return (shares + self.lambda_ / len(shares)) / (1.0 + self.lambda_)
