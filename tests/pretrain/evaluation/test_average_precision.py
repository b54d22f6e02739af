"""Average precision: literal references, a second library, and what must hold for any ranking."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_average_precision, binary_precision_recall_curve

from pretrain.evaluation.average_precision import average_precision


def curve(scores, relevant):
    """Recall and precision after each distinct score, one image after another."""
    points = []
    for threshold in sorted(set(scores), reverse=True):
        shown = [r for s, r in zip(scores, relevant, strict=True) if s >= threshold]
        points.append((sum(shown), sum(relevant), sum(shown) / len(shown)))
    return points


def literal_eleven_points(scores, relevant):
    """VOC 2007: for each of 11 recalls the highest precision at that recall or a higher one."""
    total = 0.0
    for tenth in range(11):
        total += max((p for found, all_, p in curve(scores, relevant) if 10 * found >= tenth * all_), default=0.0)
    return total / 11


def literal_area(scores, relevant):
    """VOC 2010: the area under the curve whose precision is made to fall monotonically from the right."""
    points = curve(scores, relevant)
    recall = [0.0, *(found / all_ for found, all_, _ in points), 1.0]
    precision = [0.0, *(p for _, _, p in points), 0.0]
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    return sum((recall[i + 1] - recall[i]) * precision[i + 1] for i in range(len(recall) - 1))


def rankings(count=40):
    """Random scores, many of them equal in every second ranking."""
    generator = np.random.default_rng(0)
    for number in range(count):
        size = int(generator.integers(1, 60))
        scores = generator.normal(size=size)
        relevant = generator.random(size) < generator.random()
        relevant[generator.integers(size)] = True
        yield (np.round(scores, 1) if number % 2 else scores), relevant


def test_equals_the_definitions_written_out():
    for scores, relevant in rankings():
        found = average_precision(scores, relevant)
        assert found["eleven_points"] == pytest.approx(literal_eleven_points(scores.tolist(), relevant.tolist()))
        assert found["area"] == pytest.approx(literal_area(scores.tolist(), relevant.tolist()))


def test_area_is_that_of_torchmetrics_curve_made_monotone():
    for scores, relevant in rankings():
        precision, recall, _ = binary_precision_recall_curve(torch.sigmoid(torch.tensor(scores)).double(),
                                                             torch.tensor(relevant).long())
        precision, recall = precision.flip(0).numpy(), recall.flip(0).numpy()  # from recall 0 on
        highest = np.maximum.accumulate(precision[::-1])[::-1]
        area = float((np.diff(recall) * highest[1:]).sum())
        assert average_precision(scores, relevant)["area"] == pytest.approx(area, abs=1e-6)


def test_equals_torchmetrics_where_precision_only_falls():
    """Then no higher recall has a higher precision, and the definitions agree."""
    generator = np.random.default_rng(1)
    for _ in range(10):
        gaps = np.sort(generator.integers(0, 6, 12))
        gaps[0] = 0
        relevant = np.concatenate([[False] * gap + [True] for gap in gaps])
        precision = np.cumsum(relevant)[relevant] / (np.flatnonzero(relevant) + 1)
        assert (np.diff(precision) <= 1e-12).all()
        scores = -np.arange(len(relevant), dtype=float)
        theirs = binary_average_precision(torch.sigmoid(torch.tensor(scores) / 10), torch.tensor(relevant).long())
        assert average_precision(scores, relevant)["area"] == pytest.approx(theirs.item(), abs=1e-6)


def test_never_below_torchmetrics():
    for scores, relevant in rankings():
        theirs = binary_average_precision(torch.sigmoid(torch.tensor(scores)), torch.tensor(relevant).long()).item()
        assert average_precision(scores, relevant)["area"] >= theirs - 1e-6


def test_order_of_equal_scores_does_not_matter():
    scores = np.array([1.0, 1.0, 1.0, 0.0, 0.0])
    relevant = np.array([True, False, False, True, False])
    one, other = average_precision(scores, relevant), average_precision(scores, relevant[[1, 2, 0, 4, 3]])
    assert one == other and one["area"] == pytest.approx(0.5 * 2 / 5 + 0.5 * 2 / 5)


def test_ends_of_the_scale():
    relevant = np.array([True] * 3 + [False] * 7)
    assert average_precision(-np.arange(10.0), relevant) == {"eleven_points": 1.0, "area": 1.0}
    assert average_precision(np.arange(10.0), relevant)["area"] == pytest.approx(3 / 10)  # the last three of ten
    assert all(np.isnan(value) for value in average_precision(np.arange(4.0), np.zeros(4, bool)).values())


def test_a_recall_of_tenths_is_reached_exactly():
    """3 of 10 relevant images are a recall of .3, although 3/10 is not .3 times 10 in floating point."""
    relevant = np.array([True] * 3 + [False] * 30 + [True] * 7)
    found = average_precision(-np.arange(40.0), relevant)["eleven_points"]
    assert found == pytest.approx((4 * 1.0 + 7 * 10 / 40) / 11)
