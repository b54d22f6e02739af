"""What several rules on inner products share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from harness.errors import UserError
from transfer.strategies.base import GradientBalance, GramianBalance


class GramianSolver(GramianBalance):
    """A rule without memory that is a function of the Gramian alone, written with numpy."""

    def weights(self, gramian: Tensor, losses: Tensor | None = None) -> Tensor:
        return torch.from_numpy(self.solve(gramian.detach().numpy()))

    @abstractmethod
    def solve(self, gramian: np.ndarray) -> np.ndarray:
        """Weights ``[T]`` for a Gramian ``[T, T]``, which stays as it is; float64."""


class SimplexBalance(GramianBalance):
    """A rule whose weights sum to one and go on from those of the step before.

    When only some tasks have labels in a batch, they share out among them what they had together.

    Args:
        tasks: names of the tasks.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__(tasks)
        self.register_buffer("shares", torch.full((len(self.tasks),), 1 / len(self.tasks), dtype=torch.float64))

    def weights(self, gramian: Tensor, losses: Tensor | None = None) -> Tensor:
        before = self.shares[self.rows].cpu()
        together = before.sum()
        before = before / together if together > 0 else torch.full_like(before, 1 / len(before))
        after = torch.from_numpy(self.move(before.numpy(), gramian.detach().numpy()))
        self.shares[self.rows] = (together * after).to(self.shares)
        return self.weights_of(after)

    @abstractmethod
    def move(self, shares: np.ndarray, gramian: np.ndarray) -> np.ndarray:
        """The next weights on the simplex, ``[T]``, from the last ones and the Gramian ``[T, T]``."""

    def weights_of(self, shares: Tensor) -> Tensor:
        """What the gradients are weighted with."""
        return shares


def losses_for(balance: GradientBalance, losses: Tensor | None, what: str) -> Tensor:
    """The losses, which the rule cannot do without.

    Raises:
        UserError: they are missing.
    """
    if losses is None:
        raise UserError(f"{what} needs the losses of {', '.join(balance.tasks)}: give them to it with the gradients")
    return losses


def check_range(option: str, value: float, least: float = 0.0, most: float = float("inf"), *,
                above: bool = False) -> None:
    """Refuse an option of a rule that is out of its range.

    Args:
        option: its name.
        value: what was given.
        least: the smallest value.
        most: the largest value.
        above: ``least`` itself is too small.

    Raises:
        UserError: it is.
    """
    if (value > least or (value == least and not above)) and value <= most:
        return
    limits = f"{'greater than' if above else 'at least'} {least:g}"
    limits += f" and at most {most:g}" if most != float("inf") else ""
    raise UserError(f"balance.{option} is {value:g}: set it to a value {limits}")
