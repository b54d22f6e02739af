"""Pieces of meta auxiliary learning against slow loops."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from harness.errors import UserError
from transfer.auxiliary.entropy import negative_entropy, negative_entropy_term
from transfer.auxiliary.generated import GeneratedClasses
from transfer.auxiliary.hierarchy import subclass_counts
from transfer.auxiliary.look_ahead import difference_term, exact_term, gradients, step_ahead
from transfer.auxiliary.masked_softmax import masked_softmax
from transfer.data.base import Label
from transfer.tasks.base import build_task

ANIMALS = {
    "kind": Label("classification", ("animal", "plant", "vehicle")),
    "species": Label("classification", ("cat", "oak", "dog", "car", "rose", "cow"),
                     {"kind": (0, 1, 0, 2, 1, 0)}),
    "depth": Label("depth"),
}


def same(value):
    return value


# -- masked softmax -------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [[2, 2, 1], [1, 4, 3], [5, 5, 5]])
def test_masked_softmax_is_the_loop(counts):
    """Mask × exp, then normalise: figure 3.6 of the source has [2, 2, 1]."""
    torch.manual_seed(0)
    labels = torch.tensor([0, 2, -1, 1, 1])
    logits = 3 * torch.randn(5, sum(counts), dtype=torch.float64)
    found = masked_softmax(logits, labels, torch.tensor(counts))
    for row, label, probabilities in zip(logits.tolist(), labels.tolist(), found.tolist(), strict=True):
        if label < 0:
            assert probabilities == [0.0] * sum(counts)
            continue
        start = sum(counts[:label])
        mask = [1 if start <= k < start + counts[label] else 0 for k in range(sum(counts))]
        mass = [m * math.exp(z) for m, z in zip(mask, row, strict=True)]
        assert probabilities == pytest.approx([value / sum(mass) for value in mass], rel=1e-12)


def test_masked_softmax_derivatives():
    logits = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    labels, counts = torch.tensor([1, -1, 2]), torch.tensor([2, 2, 1])
    assert torch.autograd.gradcheck(lambda z: masked_softmax(z, labels, counts), logits)
    assert torch.autograd.gradgradcheck(lambda z: masked_softmax(z, labels, counts), logits)


def test_huge_scores_elsewhere_do_not_matter():
    found = masked_softmax(torch.tensor([[0.0, 0.0, 1e4]]), torch.tensor([0]), torch.tensor([2, 1]))
    assert found.tolist() == [[0.5, 0.5, 0.0]]


# -- losses ---------------------------------------------------------------------------------------


def test_generated_classes_have_the_focal_loss():
    task = GeneratedClasses([2, 1], focal=2.0).bind("kind_auxiliary", ["a", "b"])
    assert task.channels == 3 and task.classes == ("a 1", "a 2", "b 1") and not task.dense
    prediction = torch.randn(3, 3, dtype=torch.float64)
    target = torch.tensor([[0.3, 0.7, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    expected = 0.0
    for row, labels in zip(prediction.tolist(), target.tolist(), strict=True):
        total = sum(map(math.exp, row))
        for score, label in zip(row, labels, strict=True):
            p = math.exp(score) / total
            expected -= label * (1 - p) ** 2 * math.log(p)
    assert task.normalizer(target).tolist() == [2.0]
    assert task.loss(prediction, target, task.normalizer(target)).item() == pytest.approx(expected / 2)
    assert task.unlabelled(4, 4).tolist() == [0.0] * 3


def test_focal_loss_of_classification():
    """With γ = 0 it is cross-entropy; unknown classes add nothing; one-hot and index agree."""
    prediction, target = torch.randn(4, 3, dtype=torch.float64), torch.tensor([2, -1, 0, 1])
    plain = build_task("classification", "kind", "abc")
    focal = build_task("classification", "kind", "abc", {"focal": 2.0})
    count = plain.normalizer(target)
    log = prediction.log_softmax(1)[[0, 2, 3], target[[0, 2, 3]]]
    torch.testing.assert_close(plain.loss(prediction, target, count), -log.mean())
    torch.testing.assert_close(focal.loss(prediction, target, count), -((1 - log.exp()) ** 2 * log).mean())
    with pytest.raises(UserError, match="focal is -1"):
        build_task("scene", "kind", "abc", {"focal": -1.0})


@pytest.mark.parametrize("absent", [False, True])
def test_entropy_term(absent):
    """The parts' terms have the gradient of Σ ȳ log ȳ; a class without an image in the batch does no harm."""
    torch.manual_seed(1)
    counts = torch.tensor([2, 3])
    classes = torch.zeros(6, dtype=torch.long) if absent else torch.tensor([0, 1, 1, 0, 1, -1])
    logits = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    labels = masked_softmax(logits, classes, counts)
    number = (classes >= 0).sum()
    mean = labels.sum(0) / number
    if not absent:
        expected = sum(value * math.log(value) for value in mean.tolist())
        assert negative_entropy(mean).item() == pytest.approx(expected)
        (expected,) = torch.autograd.grad((mean * mean.log()).sum(), logits, retain_graph=True)
    else:
        (expected,) = torch.autograd.grad((mean[:2] * mean[:2].log()).sum(), logits, retain_graph=True)
        assert negative_entropy(mean).isfinite()
    parts = sum(negative_entropy_term(part, mean.detach(), number) for part in labels.split(4))
    (found,) = torch.autograd.grad(parts, logits)
    torch.testing.assert_close(found, expected)


# -- one step ahead -------------------------------------------------------------------------------


def test_terms_are_the_derivative_of_the_loss_ahead():
    """Two parameters with rates of their own, one of which the inner loss does not reach, and two parts."""
    torch.manual_seed(2)
    told = torch.randn(3, dtype=torch.float64, requires_grad=True)
    values = [torch.randn(3, dtype=torch.float64, requires_grad=True),
              torch.randn(3, 3, dtype=torch.float64, requires_grad=True),
              torch.randn(2, dtype=torch.float64, requires_grad=True)]
    rates, parts = [0.1, 0.3, 0.2], [torch.randn(3, dtype=torch.float64) for _ in range(2)]

    def inner(at, part):
        return ((at[1] @ (at[0] * part)).tanh() * told.exp()).sum()

    def outer(at, part):
        return (at[1].sin() @ part * at[0]).sum() + at[2].square().sum()

    def ahead_of(told_value):
        with torch.no_grad():
            told.copy_(told_value)
        slope = [sum(rows) for rows in zip(*[gradients(inner(values, part), values) for part in parts], strict=True)]
        return step_ahead(slope, outer, parts, values, rates, same)

    start = told.detach().clone()
    expected = []
    for k in range(3):
        shift = 1e-6 * torch.eye(3, dtype=torch.float64)[k]
        expected.append(float(ahead_of(start + shift).loss - ahead_of(start - shift).loss) / 2e-6)
    ahead = ahead_of(start)
    term = sum(exact_term(gradients(inner(values, part), values, create_graph=True), ahead.direction)
               for part in parts)
    (exact,) = torch.autograd.grad(term, told)
    assert exact.tolist() == pytest.approx(expected, rel=1e-6)
    term = sum(difference_term(inner, part, values, ahead.direction, 1e-3) for part in parts)
    (close,) = torch.autograd.grad(term, told)
    assert close.tolist() == pytest.approx(expected, rel=1e-4)


def test_no_direction_at_all():
    values, told = [torch.ones(2, requires_grad=True)], torch.ones((), requires_grad=True)
    term = difference_term(lambda at, part: (at[0] * told).sum(), None, values, [torch.zeros(2)], 0.01)
    assert torch.autograd.grad(term, told)[0].item() == 0.0


# -- hierarchies ----------------------------------------------------------------------------------


def test_counts():
    assert subclass_counts(4, "kind", ANIMALS) == [4, 4, 4]
    assert subclass_counts([1, 2, 3], "kind", ANIMALS) == [1, 2, 3]
    assert subclass_counts("species", "kind", ANIMALS) == [3, 2, 1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([2, 2], "has 2 numbers, and task 'kind' has 3 classes"),
        ([2, 0, 1], "needs 1 or more"),
        (1, "leaves nothing to generate"),
        ("specie", "names task 'specie' .did you mean 'species'.*kind, species, depth"),
        ("depth", "does not say to which class of 'kind'.*species .kind."),
    ],
)
def test_impossible_counts(given, message):
    with pytest.raises(UserError, match=message):
        subclass_counts(given, "kind", ANIMALS)


def test_a_class_without_subclasses():
    labels = {**ANIMALS, "species": Label("classification", ("cat", "oak"), {"kind": (0, 1)})}
    with pytest.raises(UserError, match="no class below 'vehicle'"):
        subclass_counts("species", "kind", labels)


def test_labels_are_those_of_the_softmax():
    """Cross-entropy of the generated labels with themselves is their entropy: they are a distribution."""
    labels = masked_softmax(torch.randn(4, 6), torch.tensor([0, 1, 2, 0]), torch.tensor([2, 2, 2]))
    torch.testing.assert_close(labels.sum(1), torch.ones(4))
    task = GeneratedClasses([2, 2, 2], focal=0.0).bind("x", "abc")
    scores = torch.randn(4, 6)
    torch.testing.assert_close(task.loss(scores, labels, task.normalizer(labels)), F.cross_entropy(scores, labels))
