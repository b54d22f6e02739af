"""Loss ratios."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from transfer.strategies._loss_values import at_least, measured
from transfer.strategies.base import LossBalance
from transfer.strategies.registry import BALANCES


@BALANCES.register("loss_ratio")
class LossRatio(LossBalance):
    """Σ_t w_t L_t with w_t = (L_t / L_t(0))^α, a constant for the gradient: what has not fallen weighs more.

    L_t(0) is the first loss of the task in training.
    Source: Liu et al. 2019 (Loss-balanced task weighting); L_t / L_t(0) is GradNorm's inverse training rate
    (Vandenhende 2022, section 3.2.1).

    Args:
        tasks: names of the tasks.
        alpha: α; 0 weighs all tasks alike.
    """

    def __init__(self, tasks: Sequence[str], alpha: float = 0.5) -> None:
        super().__init__(tasks)
        self.alpha = at_least("alpha", alpha)
        self.register_buffer("first", torch.zeros(len(self.tasks)))  # 0: not seen yet

    @torch.no_grad()
    def observe(self, losses: Tensor, present: Tensor) -> None:
        new = measured(losses, present) & (self.first == 0)
        self.first.copy_(torch.where(new, losses.to(self.first), self.first))

    def total(self, losses: Tensor) -> Tensor:
        first = self.first.to(losses)
        ratio = torch.where(first > 0, losses.detach() / torch.where(first > 0, first, 1), 1)
        return (ratio**self.alpha * losses).sum()
