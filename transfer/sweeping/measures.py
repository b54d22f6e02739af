"""Numbers that compare many settings on several tasks.

Everywhere ``None`` stands for a task that a setting does not have, and ``nan`` for a result that is no
number, which counts as the worst.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import rankdata

Values = Mapping[str, Sequence[float | None]]
"""By task, a value for each setting."""


def average_ranks(values: Values, higher_is_better: Mapping[str, bool]) -> list[float]:
    """Rank on each task (1 is best, ties share the mean of their places), averaged over a setting's tasks."""
    sums, counts = _zeros(values), _zeros(values)
    for task, row in values.items():
        there = np.array([value is not None for value in row])
        costs = _costs(row, higher_is_better[task])
        sums[there] += rankdata(costs[there], method="average")
        counts[there] += 1
    return _means(sums, counts)


def normalised_scores(values: Values, higher_is_better: Mapping[str, bool]) -> list[float]:
    """Min-max normalised multi-task score: on each task 0 for the worst setting, 1 for the best; the mean of these.

    Pascal 2021, section 5.4.2: "every obtained metric score is normalized between the best and worse performance
    achieved on the respective task among all models [...] A multi-task score is then averaged". Where all
    settings are the same on a task, each has 1.
    """
    sums, counts = _zeros(values), _zeros(values)
    for task, row in values.items():
        there = np.array([value is not None for value in row])
        costs = _costs(row, higher_is_better[task])
        finite = costs[np.isfinite(costs)]
        if finite.size:
            best, worst = finite.min(), finite.max()
            scores = np.where(np.isfinite(costs), (worst - costs) / (worst - best) if worst > best else 1.0, 0.0)
            sums[there] += scores[there]
        counts[there] += 1
    return _means(sums, counts)


def losses_to_best(values: Sequence[float | None], higher_is_better: bool, relative: bool = False) -> list[float]:
    """How far each value is behind the best of all; ``inf`` for those that are no number.

    Args:
        values: one for each setting; None leaves a setting out of what is returned.
        higher_is_better: direction.
        relative: in percent of the best, not in the values' unit.
    """
    costs = _costs([value for value in values if value is not None], higher_is_better)
    finite = costs[np.isfinite(costs)]
    if not finite.size:
        return [math.inf] * len(costs)
    best = finite.min()
    scale = 100 / abs(best) if relative and best else 1.0
    return [float((cost - best) * scale) if math.isfinite(cost) else math.inf for cost in costs]


def performance_profile(losses: Sequence[float], taus: Sequence[float]) -> list[float]:
    """Share of settings whose loss to the best is at most τ, for each τ.

    Performance profiles of Dolan & Moré (2002), with hyper-parameter settings in the place of problems: a method
    whose curve is high at the left does well with many settings (see Vandenhende 2022, section 6.3.2, figure
    6.1).
    """
    ordered = np.sort(np.asarray(losses, float))
    if not ordered.size:
        return [math.nan] * len(taus)
    return [float(np.searchsorted(ordered, tau, side="right") / ordered.size) for tau in taus]


def profile_area(losses: Sequence[float], limit: float) -> float:
    """Mean of the performance profile between 0 and ``limit``: 1 when every setting is as good as the best."""
    if not losses:
        return math.nan
    if limit <= 0:
        return performance_profile(losses, [0.0])[0]
    return 1 - math.fsum(min(loss, limit) for loss in losses) / len(losses) / limit


def share_of_top(labels: Sequence[str], losses: Sequence[float], share: float = 0.2) -> dict[str, float]:
    """Of the best ``share`` of all settings, how much each label has (Vandenhende 2022, section 6.3.2).

    Args:
        labels: of each setting, for example its method.
        losses: of each setting to the best.
        share: rounded up to whole settings; those as good as the last of them are in it too.
    """
    finite = sorted(loss for loss in losses if math.isfinite(loss))
    wanted = min(len(finite), math.ceil(share * len(losses) - 1e-9))
    limit = finite[wanted - 1] if wanted else -math.inf
    inside = [label for label, loss in zip(labels, losses, strict=True) if loss <= limit]
    return {label: inside.count(label) / len(inside) if inside else 0.0 for label in dict.fromkeys(labels)}


def _costs(row: Sequence[float | None], higher_is_better: bool) -> np.ndarray:
    values = np.array([math.nan if value is None else value for value in row], float)
    return np.where(np.isfinite(values), -values if higher_is_better else values, np.inf)


def _zeros(values: Values) -> np.ndarray:
    return np.zeros(len(next(iter(values.values()), ())))


def _means(sums: np.ndarray, counts: np.ndarray) -> list[float]:
    return [float(total / count) if count else math.nan for total, count in zip(sums, counts, strict=True)]
