"""IMTL-L."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torchjd.scalarization import IMTLL

from transfer.strategies._loss_values import labelled
from transfer.strategies.base import LossBalance
from transfer.strategies.registry import BALANCES


@BALANCES.register("imtl_l")
class ImtlL(LossBalance):
    """Σ_t e^{s_t} L_t − s_t, with s_t learned beside the network; 0 at the start.

    Where s is optimal all scaled losses e^{s_t} L_t are 1: of the same size without an assumption on
    how errors are distributed.
    Source: Liu et al. 2021 (Towards impartial multi-task learning), the loss balance.
    """

    affine = True

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__(tasks)
        self.scalarizer = IMTLL(len(self.tasks))

    def total(self, losses: Tensor) -> Tensor:
        # What is not seen teaches nothing: its −s would push s up.
        unseen = self.scalarizer.log_scale * ~labelled(losses)
        return self.scalarizer(losses) + unseen.sum()
