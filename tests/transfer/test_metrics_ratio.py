"""A class from the ratio of two heights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from harness.errors import UserError
from transfer.evaluation_ratio import LinearClassifier, vertical_ratio


def test_heights_of_the_largest_regions():
    inner, outer = torch.zeros(4, 20, 20, dtype=torch.bool), torch.zeros(4, 20, 20, dtype=torch.bool)
    inner[0, 5:9, 4:8], outer[0, 3:13, 2:12] = True, True
    inner[0, 19, 19] = True  # noise
    outer[1, 3:13, 2:12] = True  # no cup
    inner[2, 3:5, 3:5] = True  # no disc
    assert vertical_ratio(inner, outer).tolist() == [0.4, 0.0, 1.0, 0.0]


def test_the_classifier_is_the_penalised_maximum_likelihood():
    draw = np.random.default_rng(0)
    x = draw.random(80)
    y = (draw.random(80) < 1 / (1 + np.exp(-6 * (x - 0.6)))).astype(int)
    z = (x - x.mean()) / x.std()

    def cost(w):
        logits = w[0] * z + w[1]
        return np.logaddexp(0, logits).sum() - (y * logits).sum() + w[0] ** 2 / 2

    a, b = minimize(cost, [0.0, 0.0], tol=1e-12).x
    got = LinearClassifier(x, y)
    assert (got.a, got.b) == pytest.approx((a, b), abs=1e-4)
    probabilities = got(torch.from_numpy(np.sort(x)))
    assert bool((probabilities.diff() >= 0).all()) and float(probabilities.sum()) > 0


def test_separable_classes_have_a_solution_and_a_single_class_has_none():
    x, y = np.array([0.1, 0.2, 0.8, 0.9]), np.array([0, 0, 1, 1])
    assert (LinearClassifier(x, y)(torch.tensor(x)) > 0.5).tolist() == [False, False, True, True]
    assert np.isfinite(LinearClassifier(np.full(4, 0.3), y).a)
    with pytest.raises(UserError, match="both classes"):
        LinearClassifier(x, np.zeros(4))
