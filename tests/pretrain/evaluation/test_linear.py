"""Linear classification: many heads at once equal each alone, and the optimum that a second library finds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from scipy.optimize import minimize

from harness.errors import UserError
from harness.seeding import numpy_generator
from pretrain.evaluation.confusion import confusion_matrix, most_confused
from pretrain.evaluation.linear_grid import hold_out, score_heads, train_heads
from pretrain.evaluation.protocols.linear import LinearClassifier

GRID = [(0.003, 0.0), (0.003, 0.3), (0.1, 0.0), (0.1, 0.03), (0.5, 0.01)]


def alone(features, labels, classes, rate, decay, *, rows, epochs, batch_size, seed):
    """One head as it is usually trained: a module, autograd, ``torch.optim.SGD`` and a schedule."""
    x = torch.tensor(features[rows]).double()
    variance, mean = torch.var_mean(x, 0, correction=0)
    x = ((x - mean) / (variance + 1e-5 * variance.mean()).sqrt()).float()
    y = torch.tensor(labels[rows])
    head = torch.nn.Linear(x.shape[1], classes)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    optimizer = torch.optim.SGD([{"params": [head.weight], "weight_decay": decay}, {"params": [head.bias]}], lr=rate,
                                momentum=0.9)
    batches = -(-len(rows) // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * batches)
    for epoch in range(epochs):
        order = numpy_generator(seed, "linear", epoch).permutation(len(rows))
        for part in np.array_split(order, batches):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(head(x[part]), y[part]).backward()
            optimizer.step()
            schedule.step()
    return head


def test_each_head_is_what_it_would_be_alone(clusters):
    features, labels = clusters(103, 4, noise=2.0)
    features = features * np.linspace(0.1, 30, 16, dtype=np.float32) + 5
    options = {"rows": np.arange(3, 103), "epochs": 6, "batch_size": 32, "seed": 7}
    heads = train_heads(features, labels, 4, GRID, **options)
    for number, (rate, decay) in enumerate(GRID):
        head = alone(features, labels, 4, rate, decay, **options)
        torch.testing.assert_close(heads.weight[:, number].T, head.weight.detach(), rtol=1e-3, atol=2e-5)
        torch.testing.assert_close(heads.bias[number], head.bias.detach(), rtol=1e-3, atol=2e-5)


def test_a_diverging_head_does_not_disturb_the_others(clusters):
    features, labels = clusters(60, 3)
    apart = train_heads(features, labels, 3, [(0.1, 0.0)], epochs=5)
    both = train_heads(features, labels, 3, [(1e30, 1e9), (0.1, 0.0)], epochs=5)
    torch.testing.assert_close(both.weight[:, 1], apart.weight[:, 0])
    assert score_heads(both, features, labels)[2].tolist() == [False, True]


def test_long_training_ends_at_the_optimum(clusters):
    """The optimum of the same regularised loss by scipy's L-BFGS."""
    features, labels = clusters(80, 3, channels=6, noise=1.5)
    decay = 0.05
    heads = train_heads(features, labels, 3, [(0.5, decay)], epochs=300, batch_size=80)
    x = ((features - features.mean(0)) / heads.scale.numpy()).astype(float)

    def loss(flat):
        w, b = flat[:18].reshape(6, 3), flat[18:]
        scores = x @ w + b
        scores = scores - scores.max(1, keepdims=True)
        share = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        error = share.copy()
        error[np.arange(80), labels] -= 1
        value = -np.log(share[np.arange(80), labels]).mean() + decay / 2 * (w**2).sum()
        return value, np.concatenate([(x.T @ error / 80 + decay * w).ravel(), error.mean(0)])

    best = minimize(loss, np.zeros(21), jac=True, method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-10})
    np.testing.assert_allclose(heads.weight[:, 0].numpy(), best.x[:18].reshape(6, 3), atol=1e-3)
    np.testing.assert_allclose(heads.bias[0].numpy(), best.x[18:], atol=1e-3)


def test_score_of_heads_is_that_of_each_image(clusters, monkeypatch):
    features, labels = clusters(50, 7, noise=4.0)
    heads = train_heads(features, labels, 7, GRID, epochs=3)
    monkeypatch.setattr("pretrain.evaluation.linear_grid.CHUNK_BYTES", 2000)  # so that there are several chunks
    rows = np.arange(5, 50)
    best, loss, finite = score_heads(heads, features, labels, rows)
    assert finite.all() and best.shape == (45, 5, 5)
    scores = heads.scores(features[rows])
    truth = torch.from_numpy(labels[rows])
    for number in range(5):
        expected = torch.nn.functional.cross_entropy(scores[:, number].double(), truth).item()
        assert loss[number] == pytest.approx(expected, rel=1e-5)
        np.testing.assert_array_equal(best[:, number, 0], scores[:, number].argmax(1))
    weight, bias = heads.folded(2)
    torch.testing.assert_close(torch.tensor(features[rows]) @ weight.T + bias, scores[:, 2], rtol=1e-3, atol=1e-3)


def test_statistics_do_not_lose_digits_to_a_large_mean(clusters):
    features, labels = clusters(60, 3)
    plain, far = (train_heads(f, labels, 3, [(0.1, 0.0)], epochs=1) for f in (features, features + np.float32(1000)))
    torch.testing.assert_close(far.scale, plain.scale, rtol=1e-3, atol=0)


def test_a_silent_channel_stays_small(clusters):
    features, labels = clusters(60, 3)
    features[:, 4] = 7.0
    heads = train_heads(features, labels, 3, [(0.1, 0.0)], epochs=2)
    assert heads.scale[4] > 1e-4 and heads.weight[4].abs().max() == 0
    assert train_heads(features * 0, labels, 3, [(0.1, 0.0)], epochs=2).scores(features * 0).isfinite().all()


def test_hold_out_is_alike_in_every_class():
    labels = np.repeat([0, 1, 2, 3], [100, 36, 2, 1])
    kept, held = hold_out(labels, 0.1, 0)
    assert np.bincount(labels[held], minlength=4).tolist() == [10, 4, 1, 0]
    assert sorted([*kept, *held]) == list(range(139))
    again, other = hold_out(labels, 0.1, 0)[1], hold_out(labels, 0.1, 1)[1]
    assert np.array_equal(held, again) and not np.array_equal(held, other)
    assert np.bincount(labels[hold_out(labels, 0.99, 0)[0]]).tolist() == [1, 1, 1, 1]


def test_measure(array_data, array_features, clusters, tmp_path):
    names = [f"class_{number}" for number in range(7)]
    test = clusters(90, 7, noise=2.5, seed=1)
    data = array_data(clusters(210, 7, noise=2.5), test, names)
    found = LinearClassifier(learning_rate=[0.01, 0.1], weight_decay=[0.0, 0.1], epochs=10).measure(
        array_features, data, tmp_path, 0)
    saved = load_file(tmp_path / "linear.safetensors")
    scores = test[0] @ saved["weight"].T + saved["bias"]
    order = np.argsort(-scores, axis=1)
    assert found.metrics["top1"] == pytest.approx(100 * (order[:, 0] == test[1]).mean())
    assert found.metrics["top5"] == pytest.approx(100 * (order[:, :5] == test[1][:, None]).any(1).mean())
    assert 30 < found.metrics["top1"] < 100 and "mean_per_class" not in found.metrics
    assert found.remarks[1].startswith("chosen of 4 points of a grid on 21 images held out of the 210")
    assert {file.name for file, _ in found.figures} == {"grid.png", "confusion.png"}
    mistakes = found.tables["most frequent mistakes"][1]
    assert sum(row[2] for row in mistakes) <= (order[:, 0] != test[1]).sum()


def test_the_test_split_decides_nothing(array_data, array_features, clusters, tmp_path):
    """With other labels in the test split the same point is chosen and the same classifier trained."""
    train, test = clusters(80, 4, noise=3.0), clusters(40, 4, noise=3.0, seed=1)
    weights = []
    for labels in (test[1], test[1][::-1].copy()):
        data = array_data(train, (test[0], labels), "abcd")
        found = LinearClassifier(epochs=3).measure(array_features, data, tmp_path, 0)
        weights.append((load_file(tmp_path / "linear.safetensors")["weight"], found.remarks))
    np.testing.assert_array_equal(weights[0][0], weights[1][0])
    assert weights[0][1] == weights[1][1]


def test_the_grid_is_judged_by_images_that_it_was_not_trained_on(array_data, array_features, tmp_path, monkeypatch):
    """Labels are chance: those of the images that were trained on are known by heart, the others guessed."""
    seen = []
    monkeypatch.setattr(LinearClassifier, "_draw_grid", lambda self, path, right, _: (seen.append(right) or path, ""))
    generator = np.random.default_rng(0)
    some = generator.normal(size=(200, 300)).astype(np.float32), generator.permutation(np.arange(200) % 2)
    found = LinearClassifier([0.03, 0.1], [0.0], epochs=20, batch_size=32, holdout=0.3).measure(
        array_features, array_data(some, some, "ab"), tmp_path, 0)
    assert found.metrics["top1"] == 100 and (seen[0] < 75).all()
    assert found.metrics["learning_rate"] == [0.03, 0.1][seen[0][:, 0].argmax()]


def test_class_mean_and_one_point(array_data, array_features, clusters, tmp_path):
    train, (vectors, labels) = clusters(60, 3, noise=2.0), clusters(60, 3, noise=2.0, seed=1)
    few = np.flatnonzero((labels > 0) | (np.arange(60) < 9))
    data = array_data(train, (vectors[few], labels[few]), "abc", mean_per_class=True)
    found = LinearClassifier([0.1], [0.0], epochs=10).measure(array_features, data, tmp_path, 0)
    saved = load_file(tmp_path / "linear.safetensors")
    right = (vectors[few] @ saved["weight"].T + saved["bias"]).argmax(1) == labels[few]
    expected = np.mean([right[labels[few] == label].mean() for label in range(3)])
    assert found.metrics["mean_per_class"] == pytest.approx(100 * expected)
    assert found.metrics["top1"] == pytest.approx(100 * right.mean()) and "top5" not in found.metrics
    assert [file.name for file, _ in found.figures] == ["confusion.png"], "one point needs no grid"


def test_points_that_diverge_are_told(array_data, array_features, clusters, tmp_path):
    data = array_data(clusters(60, 3), clusters(30, 3, seed=1), "abc")
    found = LinearClassifier([0.1, 1e30], [1e9, 0.0], epochs=3).measure(array_features, data, tmp_path, 0)
    assert "points of the grid diverged" in " ".join(found.remarks) and found.metrics["learning_rate"] == 0.1
    with pytest.raises(UserError, match="diverged with every learning rate"):
        LinearClassifier([1e30], [1e9, 1e10], epochs=3).measure(array_features, data, tmp_path, 0)


def test_a_hold_out_that_is_too_small(array_data, array_features, clusters, tmp_path):
    vectors, labels = clusters(4, 3)  # one class has two images, the others one
    data = array_data((vectors, labels), (vectors, labels), "abc")
    with pytest.raises(UserError, match="hold-out of 1 of the 4 training images is too small"):
        LinearClassifier(epochs=2).measure(array_features, data, tmp_path, 0)
    assert LinearClassifier([0.1], [0.0], epochs=2).measure(array_features, data, tmp_path, 0).metrics


@pytest.mark.parametrize(("options", "message"), [
    ({"learning_rate": [0.0]}, "linear.learning_rate"), ({"learning_rate": []}, "linear.learning_rate"),
    ({"weight_decay": [-1.0]}, "linear.weight_decay"), ({"epochs": 0}, "linear.epochs is 0"),
    ({"batch_size": 0}, "linear.batch_size is 0"), ({"holdout": 1.0}, "linear.holdout is 1.0"),
])
def test_options_that_make_no_sense(options, message):
    with pytest.raises(UserError) as error:
        LinearClassifier(**options)
    assert message in str(error.value)


def test_confusion_counts():
    truth, predicted = np.array([0, 0, 1, 1, 1, 2]), np.array([0, 1, 0, 0, 1, 2])
    counts = confusion_matrix(predicted, truth, 3)
    assert counts.tolist() == [[1, 1, 0], [2, 1, 0], [0, 0, 1]]
    assert most_confused(counts, "abc") == [("b", "a", 2, "66.7"), ("a", "b", 1, "50.0")]
