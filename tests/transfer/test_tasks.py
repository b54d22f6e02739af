"""Losses against definitions written out; parts of a batch add up; missing labels have no effect."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from harness.errors import UserError
from transfer.tasks import TASKS, build_task

CLASSES = {
    "semseg": tuple("abcde"),
    "parts": tuple("abcd"),
    "scene": tuple("abcdef"),
    "classification": tuple("abcdef"),
    "scene_distribution": tuple("abcdef"),
    "attributes": tuple("abc"),
}
VARIANTS = [
    ("semseg", {}),
    ("parts", {}),
    ("depth", {}),
    ("normals", {}),
    ("normals", {"loss": "cosine"}),
    ("edge", {}),
    ("edge", {"positive_weight": 0.7}),
    ("saliency", {}),
    ("saliency", {"balance": "none"}),
    ("scene", {}),
    ("classification", {}),
    ("classification", {"focal": 2.0}),
    ("scene_distribution", {}),
    ("attributes", {}),
    ("binary_segmentation", {}),
    ("disparity", {}),
    ("inverse_depth", {}),
    ("instance_center", {}),
    ("keypoints", {}),
    ("heat_map", {}),
    ("localization", {}),
]
POSITIVE, HEAT = ("depth", "disparity", "inverse_depth"), ("keypoints", "heat_map", "localization")
B, H, W = 5, 6, 4


def make(kind: str, options: dict, seed: int = 0):
    task = build_task(kind, kind, CLASSES.get(kind, ()), options)
    g = torch.Generator().manual_seed(seed)
    shape = (B, task.channels, H, W) if task.dense else (B, task.channels)
    prediction = torch.randn(shape, generator=g, dtype=torch.float64)
    if kind in POSITIVE + HEAT:
        target = torch.rand(B, H, W, generator=g)
        target[torch.rand(B, H, W, generator=g) < 0.3] = task.ignored
    elif kind == "instance_center":
        target = torch.randn(B, 2, H, W, generator=g) * (torch.rand(B, 1, H, W, generator=g) > 0.3)
    elif kind == "scene_distribution":
        target = torch.randn(B, 6, generator=g).softmax(1)
        target[1] = 0
    elif kind == "normals":
        target = torch.nn.functional.normalize(torch.randn(B, 3, H, W, generator=g), dim=1)
        target *= torch.rand(B, 1, H, W, generator=g) > 0.3
    elif kind in ("scene", "classification"):
        target = torch.tensor([2, -1, 0, 5, 2])
    else:
        place = (B, H, W) if task.dense else (B, 3)
        target = torch.randint(0, len(task.classes) or 2, place, generator=g)
        target = target.clamp(max=1) if kind == "attributes" else target
        target[torch.rand(place, generator=g) < 0.3] = 255
        target = target.to(torch.uint8)
    return task, prediction, target


def softmax_loss(scores: list[float], label: int) -> float:
    return math.log(sum(math.exp(s) for s in scores)) - scores[label]


def bce(logit: float, label: int) -> float:
    p = 1 / (1 + math.exp(-logit))
    return -math.log(p if label == 1 else 1 - p)


def reference(kind: str, options: dict, prediction, target) -> float:
    """The definition, one entry at a time."""
    p, t = prediction.tolist(), target.tolist()
    places = [(b, y, x) for b in range(B) for y in range(H) for x in range(W)]
    if kind in ("semseg", "parts"):
        terms = [
            softmax_loss([p[b][c][y][x] for c in range(len(p[b]))], t[b][y][x])
            for b, y, x in places
            if t[b][y][x] != 255
        ]
    elif kind in ("scene", "classification"):
        terms = [softmax_loss(p[b], t[b]) for b in range(B) if t[b] >= 0]
        if gamma := options.get("focal"):
            terms = [(1 - math.exp(-term)) ** gamma * term for term in terms]
    elif kind == "scene_distribution":
        terms = [sum(q * (math.log(q) + softmax_loss(p[b], c)) for c, q in enumerate(t[b]))
                 for b in range(B) if any(t[b])]
    elif kind == "binary_segmentation":
        terms = [bce(p[b][0][y][x], t[b][y][x]) for b, y, x in places if t[b][y][x] != 255]
    elif kind in HEAT:
        terms = [abs(p[b][0][y][x] - t[b][y][x]) for b, y, x in places if t[b][y][x] >= 0]
    elif kind == "instance_center":
        terms = [sum(abs(p[b][c][y][x] - t[b][c][y][x]) for c in range(2)) / 2 for b, y, x in places
                 if any(t[b][c][y][x] for c in range(2))]
    elif kind == "attributes":
        terms = [bce(p[b][a], t[b][a]) for b in range(B) for a in range(3) if t[b][a] != 255]
    elif kind in POSITIVE:
        terms = [abs(p[b][0][y][x] - t[b][y][x]) for b, y, x in places if t[b][y][x] > 0]
    elif kind == "normals":
        terms = []
        for b, y, x in places:
            truth = [t[b][c][y][x] for c in range(3)]
            if any(truth):
                vector = [p[b][c][y][x] for c in range(3)]
                length = math.sqrt(sum(v * v for v in vector))
                if options.get("loss") == "cosine":
                    terms.append(1 - sum(v / length * w for v, w in zip(vector, truth, strict=True)))
                else:
                    terms.append(sum(abs(v / length - w) for v, w in zip(vector, truth, strict=True)) / 3)
    else:
        labels = [t[b][y][x] for b, y, x in places if t[b][y][x] != 255]
        positive = labels.count(1) / len(labels)
        if kind == "edge":
            w = options.get("positive_weight", 0.95)
            weight = {1: w, 0: 1 - w}
        else:
            weight = {1: 1, 0: 1} if options.get("balance") == "none" else {1: 1 - positive, 0: positive}
        terms = [
            weight[t[b][y][x]] * bce(p[b][0][y][x], t[b][y][x]) for b, y, x in places if t[b][y][x] != 255
        ]
    return sum(terms) / len(terms)


def test_every_task_is_tested():
    assert set(TASKS.names()) == {kind for kind, _ in VARIANTS}


@pytest.mark.parametrize(("kind", "options"), VARIANTS)
def test_loss_equals_its_definition(kind, options):
    task, prediction, target = make(kind, options)
    loss = task.loss(prediction, target, task.normalizer(target))
    assert loss.shape == () and loss.dtype == torch.float64
    assert loss.item() == pytest.approx(reference(kind, options, prediction, target), rel=1e-6)


@pytest.mark.parametrize(("kind", "options"), VARIANTS)
def test_parts_add_up_to_the_whole(kind, options):
    task, prediction, target = make(kind, options)
    prediction.requires_grad_()
    whole = task.loss(prediction, target, task.normalizer(target))
    (gradient,) = torch.autograd.grad(whole, prediction)
    parts = [slice(0, 1), slice(1, 4), slice(4, 5)]
    normalizer = sum(task.normalizer(target[part]) for part in parts)
    torch.testing.assert_close(normalizer, task.normalizer(target), rtol=0, atol=0)
    losses = [task.loss(prediction[part], target[part], normalizer) for part in parts]
    assert sum(losses).item() == pytest.approx(whole.item(), rel=1e-14)
    (total,) = torch.autograd.grad(sum(losses), prediction)
    torch.testing.assert_close(total, gradient, rtol=1e-14, atol=0)


@pytest.mark.parametrize(("kind", "options"), VARIANTS)
def test_missing_labels_have_no_gradient(kind, options):
    task, prediction, target = make(kind, options)
    prediction.requires_grad_()
    (gradient,) = torch.autograd.grad(task.loss(prediction, target, task.normalizer(target)), prediction)
    vectors = kind in ("normals", "instance_center", "scene_distribution")
    known = (target != 0).any(1) if vectors else target != task.ignored
    missing = ~(known[:, None].expand_as(gradient) if task.dense or kind != "attributes" else known)
    assert bool(missing.any()) and not gradient[missing].any()
    assert gradient[~missing].any()


@pytest.mark.parametrize(("kind", "options"), VARIANTS)
def test_no_labels_at_all_is_zero(kind, options):
    task, prediction, _ = make(kind, options)
    empty = np.stack([task.unlabelled(H, W)] * B)
    target = torch.from_numpy(empty.transpose(0, 3, 1, 2) if empty.ndim == 4 else empty)
    normalizer = task.normalizer(target)
    assert normalizer.sum() == 0
    prediction.requires_grad_()
    loss = task.loss(prediction, target, normalizer)
    loss.backward()
    assert loss.item() == 0 and not prediction.grad.any()


@pytest.mark.parametrize(("kind", "options"), VARIANTS)
def test_half_precision_is_summed_in_full(kind, options):
    task, prediction, target = make(kind, options)
    half = prediction.bfloat16()
    normalizer = task.normalizer(target)
    loss = task.loss(half, target, normalizer)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(task.loss(half.double(), target, normalizer).item(), rel=1e-5)


@pytest.mark.parametrize(("kind", "options"), VARIANTS)
def test_predictions_are_drawn_like_targets(kind, options):
    task, prediction, target = make(kind, options)
    array = task.from_prediction(prediction[0].bfloat16())
    truth = target[0].permute(1, 2, 0).numpy() if task.dense and target.ndim == 4 else target[0].numpy()
    assert array.shape == truth.shape == task.target_shape(H, W)
    if task.dense:
        for drawn in (
            task.picture(array, truth=truth),
            task.picture(truth),
            task.picture(task.unlabelled(H, W)),
        ):
            assert drawn.shape == (H, W, 3) and drawn.dtype == np.uint8
        assert (task.picture(truth, truth=truth) == task.picture(truth)).all()
        if kind in ("depth", "disparity", "inverse_depth", "normals", "instance_center"):
            unknown = (truth == 0).reshape(H, W, -1).all(-1)
            assert unknown.any() and not task.picture(truth)[unknown].any()
        assert task.caption(truth) == ""
    else:
        assert task.caption(array)
        with pytest.raises(UserError, match="caption"):
            task.picture(array)


def test_perfect_segmentation_is_drawn_in_the_colors_of_the_truth():
    task, _, target = make("semseg", {})
    prediction = torch.nn.functional.one_hot(target[0].long().clamp(max=4), 5).permute(2, 0, 1)
    drawn, truth = task.picture(task.from_prediction(prediction)), task.picture(target[0].numpy())
    known = (target[0] != 255).numpy()
    assert (drawn[known] == truth[known]).all() and not truth[~known].any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sems", "semseg", ("a", "b")), "semseg"),
        (("semseg", "semseg", ("a",)), "2 to 255"),
        (("scene", "scene"), "two classes"),
        (("attributes", "attributes"), "one attribute"),
        (("normals", "normals", (), {"los": "l1"}), "did you mean 'loss'"),
        (("normals", "normals", (), {"loss": "l2"}), "l1 or cosine"),
        (("depth", "depth", (), {"loss": "l2"}), "it has none"),
        (("edge", "edge", (), {"positive_weight": 2.0}), "between 0 and 1"),
        (("edge", "edge", (), {"tolerance": -1.0}), "at least 0"),
        (("binary_segmentation", "disc", (), {"primary": "dice"}), "choose IoU, Dice"),
        (("classification", "glaucoma", ("a", "b"), {"primary": "auc"}), "accuracy, F1 or AUC"),
        (("localization", "fovea", (), {"floor": 1.0}), "below 1"),
        (("saliency", "saliency", (), {"balance": "class"}), "batch or none"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(UserError, match=message) as error:
        build_task(*arguments)
    assert "\n" not in str(error.value)
