"""More weight for tasks that are further from what they could reach."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from transfer.strategies.base import JacobianBalance
from transfer.strategies.registry import BALANCES
from transfer.strategies.weighing import check_range


@BALANCES.register("excess_mtl")
class ExcessMTL(JacobianBalance):
    """Gradients weighted with shares of 1 that move as w_t ← w_t exp(η Ê_t / Ê_t(0)) / Σ.

    The excess risk of a task, how much its loss could still fall, is estimated to the second order,
    Ê_t = g_tᵀ diag(h_t)⁻¹ g_t, with the curvature h_t from the squares of its gradients so far, √(Σ g_t²) (He et al.
    2024, "Robust Multi-Task Learning with Excess Risks", equations 6, 7 and 9). Ê_t(0) is the mean of its first
    steps, over which the weights stay equal.

    The squares take as much memory as the gradients of all tasks, in the run's checkpoints too, and are those
    of parameters: it works at that level alone.

    Args:
        tasks: names of the tasks.
        step_size: η.
        warmup: first steps of a task that give Ê_t(0). The paper takes those of three epochs.

    Raises:
        UserError: a number is out of its range.
    """

    levels = ("params",)

    def __init__(self, tasks: Sequence[str], step_size: float = 1.0, warmup: int = 1) -> None:
        super().__init__(tasks)
        check_range("step_size", step_size, above=True)
        check_range("warmup", warmup, 1)
        self.step_size = step_size
        self.warmup = warmup
        count = len(self.tasks)
        self.register_buffer("shares", torch.full((count,), 1.0 / count))
        self.register_buffer("first", torch.zeros(count))
        self.register_buffer("steps", torch.zeros(count))
        self.register_buffer("squares", torch.zeros(count, 0))  # as wide as the Jacobian, once that is known

    def direction(self, jacobian: Tensor) -> Tensor:
        if self.squares.shape[1] == 0:
            self.squares = jacobian.new_zeros(len(self.tasks), jacobian.shape[1])
        if self.shares.device != jacobian.device or self.shares.dtype != jacobian.dtype:
            self.to(jacobian)
        excess = torch.stack([self._excess(row, gradient) for row, gradient in zip(self.rows, jacobian, strict=True)])
        rows = torch.tensor(self.rows, device=jacobian.device)
        new = self.steps[rows] < self.warmup
        self.steps[rows] += 1
        self.first[rows] += torch.where(new, excess / self.warmup, 0.0)
        relative = torch.where(new, 1.0, excess / self.first[rows].clamp(min=torch.finfo(excess.dtype).tiny))
        before = self.shares[rows]
        # In logarithms: a task that had no gradient at first may have a very large ratio.
        logits = before.log() + self.step_size * relative.clamp(max=1e6)
        after = torch.softmax(logits, 0)
        self.shares[rows] = after * before.sum()
        return after @ jacobian

    def _excess(self, row: int, gradient: Tensor) -> Tensor:
        squares = self.squares[row].addcmul_(gradient, gradient)
        return (gradient.square() / (squares + 1e-7).sqrt()).sum()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        saved = state_dict.get(f"{prefix}squares")
        if isinstance(saved, Tensor) and saved.shape[:1] == self.squares.shape[:1]:
            self.squares = self.squares.new_zeros(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *args)
