"""Support vector machines: the optimum that scipy and scikit-learn find, and what counts as what."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from harness.errors import UserError
from pretrain.evaluation.average_precision import average_precision
from pretrain.evaluation.linear_svm import svm_scores, train_svms
from pretrain.evaluation.protocols.voc_svm import LinearSVMs


def attributes(count, labels=5, channels=12, seed=0):
    """Features with a large mean, as those after a ReLU, and attributes that depend on them and on chance."""
    rules = np.random.default_rng(99).normal(size=(channels, labels))
    generator = np.random.default_rng(seed)
    noise = generator.normal(size=(count, channels))
    positive = (noise @ rules + 2 * generator.normal(size=(count, labels))) > np.linspace(-1, 5, labels)
    return (np.abs(noise + 1) * 3).astype(np.float32), positive.astype(np.int8)


def unit(features):
    rows = features.astype(float)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def objective(flat, x, sign, cost):
    slack = np.maximum(0, 1 - sign * (x @ flat))
    return flat @ flat / 2 + (cost * slack**2).sum(), flat - 2 * x.T @ (cost * sign * slack)


@pytest.mark.parametrize("cost", [0.5, 100.0])
def test_each_machine_is_at_its_optimum(cost):
    features, positive = attributes(150)
    weights = cost * np.where(positive, 2.0, 1.0)
    weights[::7, 1] = 0  # left out
    w, b = train_svms(features, positive > 0, weights, tolerance=1e-12)
    x = np.hstack([unit(features), np.ones((150, 1))])
    for label in range(5):
        sign = np.where(positive[:, label], 1.0, -1.0)
        best = minimize(objective, np.zeros(13), (x, sign, weights[:, label]), jac=True, method="L-BFGS-B",
                        options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 5000})
        found = np.append(w[:, label].numpy(), b[label].item())
        np.testing.assert_allclose(found, best.x, atol=2e-4 * np.abs(best.x).max())
        assert objective(found, x, sign, weights[:, label])[0] <= best.fun * (1 + 1e-9)


def test_equals_linear_svc():
    svm = pytest.importorskip("sklearn.svm")
    features, positive = attributes(150)
    w, b = train_svms(features, positive > 0, 0.5 * np.where(positive, 2.0, 1.0))
    for label in range(5):
        theirs = svm.LinearSVC(C=0.5, class_weight={1: 2, 0: 1}, tol=1e-8, max_iter=100000, random_state=0)
        theirs.fit(unit(features), positive[:, label])
        np.testing.assert_allclose(w[:, label].numpy(), theirs.coef_[0], atol=1e-4)
        assert b[label].item() == pytest.approx(theirs.intercept_[0], abs=1e-4)


def test_chunks_give_the_same(monkeypatch):
    features, positive = attributes(60)
    weights = np.full(positive.shape, 0.5)
    whole = train_svms(features, positive > 0, weights)
    scores = svm_scores(features, *whole)
    np.testing.assert_allclose(scores, unit(features) @ whole[0].numpy() + whole[1].numpy(), atol=1e-6)
    monkeypatch.setattr("pretrain.evaluation.samples.chunks.__defaults__", (700,))
    parts = train_svms(features, positive > 0, weights)
    torch.testing.assert_close(parts[0], whole[0], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(svm_scores(features, *parts), scores, atol=1e-6)


def test_a_label_that_all_or_none_have():
    features, positive = attributes(40)
    positive[:, 0], positive[:, 1] = 1, 0
    scores = svm_scores(features, *train_svms(features, positive > 0, np.full(positive.shape, 0.5)))
    assert (scores[:, 0] > 0.5).all() and (scores[:, 1] < -0.5).all()


def test_metrics_are_those_of_the_scores(array_data, array_features, tmp_path):
    train, test = attributes(120), attributes(80, seed=1)
    data = array_data(train, test, "abcde", "attributes")
    found = LinearSVMs().measure(array_features, data, tmp_path, 0)
    scores = svm_scores(test[0], *train_svms(train[0], train[1] > 0, 0.5 * np.where(train[1], 2.0, 1.0)))
    each = [average_precision(scores[:, a], test[1][:, a] > 0) for a in range(5)]
    for kind in ("eleven_points", "area"):
        assert found.metrics[f"map_{kind}"] == pytest.approx(100 * np.mean([one[kind] for one in each]))
    assert test[1].mean() * 100 + 5 < found.metrics["map_area"] < 100, "learnt, and not all"
    (heading, (header, rows)), = found.tables.items()
    assert rows[0][:3] == ("a", f"{100 * each[0]['eleven_points']:.1f}", f"{100 * each[0]['area']:.1f}")
    assert rows[0][4:] == (int(train[1][:, 0].sum()), int(test[1][:, 0].sum())) and len(header) == len(rows[0])
    assert list(LinearSVMs(average="area").columns) == ["map_area", "map_eleven_points"]


def test_difficult_images(array_data, array_features, tmp_path):
    """Ignoring them is as if they were not there; counting them as negatives is as if they had not the attribute."""
    train, test = attributes(100, 1), attributes(90, 1, seed=1)
    hard = [(x, np.where((np.arange(len(y)) % 5 == 0)[:, None], -1, y).astype(np.int8)) for x, y in (train, test)]
    without = [(x[y[:, 0] >= 0], y[y[:, 0] >= 0]) for x, y in hard]
    negative = [(x, np.maximum(y, 0)) for x, y in hard]

    def measure(splits, difficult):
        data = array_data(*splits, "a", "attributes")
        return LinearSVMs(difficult=difficult).measure(array_features, data, tmp_path, 0)

    assert measure(hard, "ignore").metrics == pytest.approx(measure(without, "negative").metrics)
    assert measure(hard, "negative").metrics == pytest.approx(measure(negative, "ignore").metrics)
    assert measure(hard, "negative").metrics != pytest.approx(measure(hard, "ignore").metrics)
    assert measure(hard, "ignore").remarks == ["38 labels are difficult and are left out"]


def test_an_attribute_that_no_test_image_has(array_data, array_features, tmp_path):
    train, (vectors, labels) = attributes(60, 3), attributes(40, 3, seed=1)
    labels[:, 1] = 0
    found = LinearSVMs().measure(array_features, array_data(train, (vectors, labels), "abc", "attributes"), tmp_path, 0)
    each = [float(row[1]) for row in found.tables["average precision"][1]]
    assert np.isnan(each[1]) and found.metrics["map_eleven_points"] == pytest.approx((each[0] + each[2]) / 2, abs=0.1)
    assert found.remarks == ["not in the mean, since no test image has it: b"]


def test_data_that_cannot_be_measured(array_data, array_features, tmp_path):
    (x, y), test = attributes(60, 3), attributes(40, 3, seed=1)
    y[:, 2] = 0
    with pytest.raises(UserError, match="'c' of the 3 attributes is in the split 'test' and not in 'train'"):
        LinearSVMs().measure(array_features, array_data((x, y), test, "abc", "attributes"), tmp_path, 0)
    with pytest.raises(UserError, match="no image of the split 'test' has any of the 3 attributes"):
        LinearSVMs().measure(array_features, array_data((x, y), (x, y * 0), "abc", "attributes"), tmp_path, 0)


@pytest.mark.parametrize("name", ["cost", "positive_weight", "negative_weight"])
def test_options_that_make_no_sense(name):
    with pytest.raises(UserError, match=f"voc_svm.{name} is 0"):
        LinearSVMs(**{name: 0})
