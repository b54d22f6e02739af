"""The user's own weights of tasks' losses, where tasks may act as one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from harness.errors import UserError


def importances(given: Mapping[str, float], units: Mapping[str, Sequence[str]]) -> tuple[dict[str, float], list[float]]:
    """What each task's loss is multiplied by within its unit, and what a rule's weight of each unit is.

    With ī the mean importance of a unit's tasks, its loss is Σ_t (i_t / ī) L_t, and the rule's weight of it is
    multiplied by ī. So a unit is a weighted sum of its tasks (Pascal 2021, section 4.2.4), what is left to it
    comes on top of the rule, and a task alone keeps its loss as it is.

    Args:
        given: importance by task; 1 for those not named.
        units: the tasks that act as one, by name.

    Raises:
        UserError: an importance is negative, or not finite.
    """
    for task, value in given.items():
        if not 0 <= value < math.inf:
            raise UserError(f"balance.importance of {task} is {value}: set it to 0 or more")
    within: dict[str, float] = {}
    means = []
    for tasks in units.values():
        own = [given.get(task, 1.0) for task in tasks]
        mean = sum(own) / len(own)
        within.update((task, value / mean if mean else 1.0) for task, value in zip(tasks, own, strict=True))
        means.append(mean)
    return within, means


def weighed(loss: Tensor, factor: float) -> Tensor:
    """A loss times what :func:`importances` gave for its task."""
    return loss if factor == 1.0 else loss * factor
