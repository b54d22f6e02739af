"""What the parts of a strategy are asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn


class Balance(nn.Module):
    """How the losses of the tasks become one objective. Learned weights are parameters of the module.

    Args:
        tasks: names, in the order of the losses.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        self.tasks = list(tasks)


class LossBalance(Balance, ABC):
    """A rule that needs the values of the losses alone.

    Attributes:
        linear: the objective is linear in the losses, with weights that do not depend on them; so the
            parts of a batch can be weighed one by one.
    """

    linear: ClassVar[bool] = False

    @abstractmethod
    def total(self, losses: Tensor) -> Tensor:
        """The objective.

        Args:
            losses: ``[T]``, in the order of :attr:`tasks`; 0 for a task without labels in the batch.

        Returns:
            A scalar; its gradient is what the optimiser sees.
        """


class Schedule(ABC):
    """Whose step is taken when.

    Args:
        forward: ``(part of the batch, tasks) -> {task: loss}``, where the losses of the parts add up to
            those of the batch.
        balance: the objective of a step.
        backward: takes the gradient of a scalar, accumulating and summing over processes; its second
            argument says whether this is the batch's last part, when processes exchange gradients.
        optimizer: steps and clears gradients.
        pool: sums a tensor over the processes.
    """

    def __init__(self, forward: Callable[[Any, Sequence[str]], dict[str, Tensor]], balance: Balance,
                 backward: Callable[[Tensor, bool], None], optimizer: Any,
                 pool: Callable[[Tensor], Tensor]) -> None:
        self.forward, self.balance, self.backward, self.optimizer = forward, balance, backward, optimizer
        self.pool = pool

    @abstractmethod
    def step(self, parts: Sequence[Any], tasks: Sequence[str]) -> dict[str, Tensor]:
        """Optimise on one batch.

        Args:
            parts: the batch, cut for gradient accumulation.
            tasks: the tasks of the objective.

        Returns:
            The loss of every task on the whole batch of this process, detached.
        """
