"""Geometric mean of the losses."""

from __future__ import annotations

import torch
from torch import Tensor

from transfer.strategies._loss_values import labelled
from transfer.strategies.base import LossBalance
from transfer.strategies.registry import BALANCES


@BALANCES.register("geometric_mean")
class GeometricMean(LossBalance):
    """(Π_t L_t)^{1/T}, over the tasks with labels in the batch: it does not matter how losses are scaled.

    Its gradient is the mean of ∇L_t / L_t, times itself.
    Source: Chennupati et al. 2019 (MultiNet++).
    """

    separable = False

    def total(self, losses: Tensor) -> Tensor:
        # not TorchJD's, whose check of the signs waits for the device
        present = labelled(losses)
        logarithms = torch.where(present, losses, 1).log()
        mean = (logarithms.sum() / present.sum().clamp_min(1)).exp()
        return torch.where(present.any(), mean, 0)
