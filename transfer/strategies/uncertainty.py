"""Uncertainty weighting."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchjd.scalarization import UW

from transfer.strategies._loss_values import labelled
from transfer.strategies.base import LossBalance
from transfer.strategies.registry import BALANCES


@BALANCES.register("uncertainty")
class Uncertainty(LossBalance):
    """Σ_t ½ e^{−s_t} L_t + ½ s_t, with s_t = log σ_t² learned beside the network.

    σ_t is the homoscedastic uncertainty of a task: the noise of its labels, which does not depend on
    the image. At the optimum of s the term of a task is ½ (1 + log L_t).
    Source: Kendall et al. 2018; Liu 2018, section 2.1.1; Vandenhende 2022, equation 3.6.

    Args:
        tasks: names of the tasks.
        s0: log σ² at the start.
    """

    affine = True

    def __init__(self, tasks: Sequence[str], s0: float = 0.0) -> None:
        super().__init__(tasks)
        self.scalarizer = UW(len(self.tasks))
        torch.nn.init.constant_(self.scalarizer.log_var, s0)

    def total(self, losses: Tensor) -> Tensor:
        # What is not seen teaches nothing: its ½ s would pull s down.
        unseen = self.scalarizer.log_var * ~labelled(losses)
        return self.scalarizer(losses) - unseen.sum() / 2
