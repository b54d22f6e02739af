"""Dynamic weight average."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from transfer.strategies._loss_values import at_least, measured
from transfer.strategies.base import LossBalance
from transfer.strategies.registry import BALANCES


@BALANCES.register("dwa")
class Dwa(LossBalance):
    """Σ_t w_t L_t with w = T softmax(r / τ), r_t = L_t(e − 1) / L_t(e − 2): what falls slowly weighs more.

    L_t(e) is the mean of the loss over epoch e. In the first two epochs, and for tasks whose loss is
    not known of two epochs, r is 1; an epoch without labels of a task is no epoch of it.
    Source: Liu 2018, section 2.1.2.2; Vandenhende 2022, equation 3.8.

    Args:
        tasks: names of the tasks.
        tau: temperature; the larger, the more equal the weights. The source has 20 on Cityscapes and 5
            on NYUv2, its later program 2.
    """

    linear = True

    def __init__(self, tasks: Sequence[str], tau: float = 2.0) -> None:
        super().__init__(tasks)
        self.tau = at_least("tau", tau, strictly=True)
        self.register_buffer("mean", torch.zeros(len(self.tasks)))  # of the last epoch; 0 is none
        self.register_buffer("rate", torch.ones(len(self.tasks)))

    @torch.no_grad()
    def end_of_epoch(self, losses: Tensor, present: Tensor) -> None:
        losses = losses.to(self.mean)
        known = measured(losses, present)
        again = known & (self.mean > 0)
        self.rate.copy_(torch.where(again, losses / torch.where(again, self.mean, 1), self.rate))
        self.mean.copy_(torch.where(known, losses, self.mean))

    def total(self, losses: Tensor) -> Tensor:
        weights = len(self.tasks) * torch.softmax(self.rate.to(losses) / self.tau, 0)
        return (weights * losses).sum()
