"""Ranks, scores and profiles of a sweep against slow references."""

from __future__ import annotations

import math
import random

import pytest

from transfer.sweeping.measures import (
    average_ranks,
    losses_to_best,
    normalised_scores,
    performance_profile,
    profile_area,
    share_of_top,
)

HIGHER = {"a": True, "b": False, "c": True}


def draw(seed: int, count: int = 9) -> dict[str, list[float | None]]:
    """Few different values, so that there are ties; some are missing or no number."""
    generator = random.Random(seed)
    odd = [None, math.nan, math.inf]
    return {task: [generator.choice(odd) if generator.random() < 0.15 else float(generator.randint(1, 5))
                   for _ in range(count)] for task in HIGHER}


def better(x: float, y: float, higher: bool) -> bool:
    if not math.isfinite(y):
        return math.isfinite(x)
    return math.isfinite(x) and (x > y if higher else x < y)


@pytest.mark.parametrize("seed", range(6))
def test_average_ranks_by_counting(seed):
    values = draw(seed)
    expected = []
    for i in range(9):
        places = []
        for task, row in values.items():
            if row[i] is None:
                continue
            others = [value for value in row if value is not None]
            ahead = sum(better(value, row[i], HIGHER[task]) for value in others)
            behind = sum(better(row[i], value, HIGHER[task]) for value in others)
            same = len(others) - ahead - behind  # itself too
            places.append(sum(range(ahead + 1, ahead + same + 1)) / same)
        expected.append(sum(places) / len(places) if places else math.nan)
    assert average_ranks(values, HIGHER) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("seed", range(6))
def test_normalised_scores_by_hand(seed):
    values = draw(seed)
    expected = []
    for i in range(9):
        parts = []
        for task, row in values.items():
            if row[i] is None:
                continue
            finite = [value for value in row if value is not None and math.isfinite(value)]
            low, high = min(finite), max(finite)
            part = 0.0 if not math.isfinite(row[i]) else 1.0 if low == high else (row[i] - low) / (high - low)
            parts.append(1 - part if math.isfinite(row[i]) and low != high and not HIGHER[task] else part)
        expected.append(sum(parts) / len(parts) if parts else math.nan)
    assert normalised_scores(values, HIGHER) == pytest.approx(expected, nan_ok=True)


def test_published_scores():
    """Pascal 2021, table 5.1's rule: the best on every task has 1, the worst on every task 0, whatever the units."""
    values = {"a": [80.0, 85.0, 90.0], "b": [9.0, 7.0, 5.0]}
    assert normalised_scores(values, HIGHER) == [0.0, 0.5, 1.0] and average_ranks(values, HIGHER) == [3.0, 2.0, 1.0]
    assert normalised_scores({"a": [3.0, 3.0]}, HIGHER) == [1.0, 1.0]
    assert average_ranks({}, {}) == [] == normalised_scores({}, {})
    scaled = {"a": [value * 7 - 2 for value in values["a"]], "b": [value / 3 for value in values["b"]]}
    assert normalised_scores(scaled, HIGHER) == pytest.approx(normalised_scores(values, HIGHER))


def test_losses():
    assert losses_to_best([3.0, 5.0, None, math.nan], True) == [2.0, 0.0, math.inf]
    assert losses_to_best([3.0, 5.0, 4.0], False) == [0.0, 2.0, 1.0]
    assert losses_to_best([0.5, 0.6], False, relative=True) == pytest.approx([0, 20])
    assert losses_to_best([-2.0, -3.0], True, relative=True) == pytest.approx([0, 50])
    assert losses_to_best([math.nan], True) == [math.inf] and losses_to_best([], True) == []


@pytest.mark.parametrize("seed", range(4))
def test_profile_and_its_area(seed):
    generator = random.Random(seed)
    losses = [generator.choice([math.inf, float(generator.randint(0, 6))]) for _ in range(11)]
    taus = [0, 0.5, 1, 2, 3.3, 6, 100]
    shares = [sum(loss <= tau for loss in losses) / 11 for tau in taus]
    assert performance_profile(losses, taus) == pytest.approx(shares)
    fine = [(i + 0.5) * 6 / 60000 for i in range(60000)]
    assert profile_area(losses, 6) == pytest.approx(sum(performance_profile(losses, fine)) / 60000, abs=1e-3)
    assert profile_area([0.0, 0.0], 6) == 1 and profile_area([0.0, math.inf], 0.0) == 0.5
    assert math.isnan(profile_area([], 1))


def test_share_of_the_best_fifth():
    labels = ["a"] * 5 + ["b"] * 5
    losses = [0, 3, 4, 5, 6, 1, 7, 8, math.inf, math.inf]
    assert share_of_top(labels, losses) == {"a": 0.5, "b": 0.5}  # two of ten: 0 and 1
    assert share_of_top(labels, losses, 0.3) == {"a": pytest.approx(2 / 3), "b": pytest.approx(1 / 3)}
    assert share_of_top(["a", "b", "b"], [0.0, 0.0, 9.0]) == {"a": 0.5, "b": 0.5}  # a tie for the last place
    assert share_of_top(["a"], [math.inf]) == {"a": 0.0}
