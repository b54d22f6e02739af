"""The common descent direction of least norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from transfer.strategies.base import GramianBalance
from transfer.strategies.registry import BALANCES
from transfer.strategies.solvers.gramian import inverse_or_zero, norms
from transfer.strategies.solvers.min_norm import frank_wolfe, least_norm
from transfer.strategies.weighing import check_range, losses_for


@BALANCES.register("mgda")
class MGDA(GramianBalance):
    """min ‖Σ_t α_t ∇L_t‖² over α_t ≥ 0, Σ_t α_t = 1 (Sener & Koltun 2018, equation 3; Désidéri 2012).

    The solution is zero at a Pareto stationary point, and elsewhere its negative is a direction of descent
    for every task. For two tasks it has the closed form of equation 4.

    With a normalisation, α is that of the scaled gradients, and still weighs the ones as they are: with
    n_t = ‖∇L_t‖ (l2), L_t (loss) or L_t ‖∇L_t‖ (loss+) it is the point of least norm among the
    Σ_t α_t ∇L_t / n_t. The paper leaves the gradients as they are; its authors' program has the others.

    Args:
        tasks: names of the tasks.
        normalize: what gradients are divided by before the problem is solved: none, l2, loss or loss+.
        solver: exact solves the problem by non-negative least squares; frank_wolfe is algorithm 2 of the paper,
            which comes near the same point.
        iterations: at most, of frank_wolfe.
        tolerance: frank_wolfe stops when its steps are smaller.

    Raises:
        UserError: a number is out of its range.
    """

    def __init__(self, tasks: Sequence[str], normalize: Literal["none", "l2", "loss", "loss+"] = "none",
                 solver: Literal["exact", "frank_wolfe"] = "exact", iterations: int = 250,
                 tolerance: float = 1e-5) -> None:
        super().__init__(tasks)
        check_range("iterations", iterations, 1)
        check_range("tolerance", tolerance)
        self.normalize = normalize
        self.needs_losses = normalize in ("loss", "loss+")
        self.solver = solver
        self.iterations = iterations
        self.tolerance = tolerance

    def weights(self, gramian: Tensor, losses: Tensor | None = None) -> Tensor:
        values = gramian.detach().numpy()
        if self.normalize != "none":
            scale = np.ones(len(values))
            if self.normalize in ("l2", "loss+"):
                scale = scale * inverse_or_zero(norms(values))
            if self.needs_losses:
                losses = losses_for(self, losses, f"mgda with normalize {self.normalize}")
                scale = scale * inverse_or_zero(np.abs(losses.detach().numpy()))
            values = values * np.outer(scale, scale)
        if self.solver == "exact":
            return torch.from_numpy(least_norm(values))
        return torch.from_numpy(frank_wolfe(values, self.iterations, self.tolerance))
