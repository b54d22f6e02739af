"""Random loss weighting."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.seeding import derive_seed
from transfer.strategies.base import LossBalance
from transfer.strategies.registry import BALANCES


@BALANCES.register("random_loss")
class RandomLoss(LossBalance):
    """Σ_t w_t L_t with w = softmax(z), z ~ N(0, 1), drawn anew for every step: a litmus test for rules.

    Source: Lin et al. 2022 (Reasonable effectiveness of random weighting), algorithm 2.

    Args:
        tasks: names of the tasks.
        seed: of the draws; that of the network's weights when none.
    """

    linear = True

    def __init__(self, tasks: Sequence[str], seed: int | None = None) -> None:
        super().__init__(tasks)
        # On the CPU, so that nothing waits for a device to know which draw is next.
        self.seed, self.steps = derive_seed("random_loss", torch.initial_seed() if seed is None else seed), 0
        self.register_buffer("task_weights", self._draw())

    def _draw(self) -> Tensor:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.steps))
        values = torch.randn(len(self.tasks), generator=generator)
        # A task has the same draw wherever it stands.
        order = sorted(range(len(self.tasks)), key=self.tasks.__getitem__)
        return torch.softmax(values, 0)[torch.tensor(order).argsort()]

    def observe(self, losses: Tensor, present: Tensor) -> None:
        self.steps += 1
        self.task_weights.copy_(self._draw(), non_blocking=True)

    def total(self, losses: Tensor) -> Tensor:
        return (self.task_weights.to(losses) * losses).sum()

    def get_extra_state(self) -> Tensor:
        return torch.tensor([self.seed, self.steps])

    def set_extra_state(self, state: Tensor) -> None:
        self.seed, self.steps = state.tolist()
