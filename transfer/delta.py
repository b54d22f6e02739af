"""Multi-task performance against single-task baselines, in one number."""

from __future__ import annotations

import math
from collections.abc import Mapping

from harness.errors import UserError


def delta_mtl(
    metrics: Mapping[str, float],
    baseline: Mapping[str, float],
    higher_is_better: Mapping[str, bool],
) -> float:
    """Average relative gain over the single-task baseline, Δ_MTL.

    ``100 / T · Σ_i (−1)^{l_i} (M_i − B_i) / B_i`` with ``l_i = 1`` where lower is better
    (Vandenhende 2022, equation 2.2). Positive is better than one network per task.

    Args:
        metrics: the multi-task model's primary metric for each task.
        baseline: the same metric of the task's own network; tasks that ``metrics`` lacks are not used.
        higher_is_better: the direction for each task.

    Returns:
        Percent; ``nan`` where a metric is ``nan`` or a baseline is zero, where no ratio exists.

    Raises:
        UserError: no task, or a task without a baseline or a direction.
    """
    if not metrics:
        raise UserError("Δ_MTL needs at least one task: no metrics were given")
    for name, given in (("baseline", baseline), ("higher_is_better", higher_is_better)):
        lacking = [task for task in metrics if task not in given]
        if lacking:
            raise UserError(f"Δ_MTL: {name} lacks {', '.join(lacking)}: give it for every task of the model")
    gains = []
    for task, value in metrics.items():
        reference = float(baseline[task])
        if reference == 0:
            return math.nan
        gain = (float(value) - reference) / reference
        gains.append(gain if higher_is_better[task] else -gain)
    return 100 * math.fsum(gains) / len(gains)
