"""What rules on the values of losses share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from harness.errors import UserError, closest

#: Key performance indicators are taken to lie between this and 1 − this: the interval of their definition is open.
LEAST = 1e-3


def labelled(losses: Tensor) -> Tensor:
    """Which tasks have a loss: those without labels in the batch have 0.

    A loss that is 0 because the task is solved has no gradient, so that leaving it out does no harm.
    """
    return losses != 0


def measured(losses: Tensor, present: Tensor) -> Tensor:
    """Which losses can be remembered: they have labels, are finite, and can be divided by."""
    return present & (losses > 0) & losses.isfinite()


def equalizing(means: Tensor) -> Tensor:
    """Weights that bring losses to one size: w ∝ 1 / mean, Σ w = number of tasks.

    Args:
        means: ``[T]``; 0 for tasks whose mean is not known: they weigh 1, and the others add up to
            their own number.
    """
    known = means > 0
    inverse = torch.where(known, 1 / torch.where(known, means, 1), 0)
    weights = inverse * (known.sum() / inverse.sum().clamp_min(torch.finfo(means.dtype).tiny))
    return torch.where(known, weights, 1)


def at_least(option: str, value: float, least: float = 0, *, strictly: bool = False) -> float:
    """The value of an option, which has a lower limit.

    Raises:
        UserError: it is below, or not a number.
    """
    if not (value > least if strictly else value >= least) or value == float("inf"):
        limit = f"more than {least}" if strictly else f"{least} or more"
        raise UserError(f"balance.{option} is {value}: set it to {limit}")
    return value


def of_tasks(tasks: Sequence[str], option: str, values: Mapping[str, float] | None, default: float,
             least: float = -float("inf"), *, strictly: bool = False) -> Tensor:
    """The values ``[T]`` of an option that is given by task.

    Raises:
        UserError: a name that is no task, or a value below the limit.
    """
    for task, value in (values or {}).items():
        if task not in tasks:
            raise UserError(f"balance.{option} names '{task}'{closest(task, tasks)}, and the tasks are "
                            f"{', '.join(tasks)}")
        at_least(f"{option}.{task}", value, least, strictly=strictly)
    return torch.tensor([float((values or {}).get(task, default)) for task in tasks])


def preferences(tasks: Sequence[str], weights: Mapping[str, float] | None) -> Tensor:
    """A preference vector ``[T]`` on the simplex; tasks that are not named have weight 1 before the scaling.

    Raises:
        UserError: as :func:`of_tasks`, or a weight that is not positive.
    """
    values = of_tasks(tasks, "weights", weights, 1.0, 0, strictly=True)
    return values / values.sum()
