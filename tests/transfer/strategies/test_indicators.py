"""Key performance indicators of tasks against definitions written out, one entry at a time."""

from __future__ import annotations

import math

import pytest
import torch

from harness.errors import UserError
from transfer.tasks import build_task
from transfer.tasks.base import Task

CLASSES = {"semseg": tuple("abcde"), "parts": tuple("abc"), "scene": tuple("abcd"), "attributes": tuple("abc")}
KINDS = ["semseg", "parts", "depth", "normals", "edge", "saliency", "scene", "attributes"]
B, H, W = 4, 5, 3


def make(kind: str, seed: int = 0):
    """A task, predictions that are somewhat near the labels, and labels, of which a third is missing."""
    task = build_task(kind, kind, CLASSES.get(kind, ()))
    g = torch.Generator().manual_seed(seed)
    images = B if task.dense else 30
    place = (B, H, W) if task.dense else (images, 3) if kind == "attributes" else (images,)
    unknown = torch.rand(place, generator=g) < 1 / 3
    prediction = torch.randn((B, task.channels, H, W) if task.dense else (images, task.channels), generator=g)
    if kind == "depth":
        target = (torch.rand(place, generator=g) + 0.5).masked_fill(unknown, 0)
        prediction = target[:, None] * (1 + 0.4 * prediction) + 1e-3 * prediction
    elif kind == "normals":
        target = torch.nn.functional.normalize(torch.randn(B, 3, H, W, generator=g), dim=1) * ~unknown[:, None]
        prediction = 3 * (target + 0.4 * prediction)
    else:
        choices = len(task.classes) if kind in ("semseg", "parts", "scene") else 2
        target = torch.randint(0, choices, place, generator=g).masked_fill(unknown, int(task.ignored))
        target = target if kind == "scene" else target.to(torch.uint8)
    return task, prediction, target


def reference(kind: str, prediction, target) -> float:
    p, t = prediction.tolist(), target.tolist()
    places = [(b, y, x) for b in range(B) for y in range(H) for x in range(W)]
    good = []
    if kind in ("semseg", "parts"):
        for b, y, x in places:
            if t[b][y][x] != 255:
                scores = [channel[y][x] for channel in p[b]]
                good.append(scores.index(max(scores)) == t[b][y][x])
    elif kind == "scene":
        good = [p[b].index(max(p[b])) == t[b] for b in range(len(p)) if t[b] != -1]
    elif kind == "attributes":
        good = [(p[b][a] > 0) == t[b][a] for b in range(len(p)) for a in range(3) if t[b][a] != 255]
    elif kind == "depth":
        for b, y, x in places:
            if t[b][y][x] > 0:
                d, truth = max(p[b][0][y][x], 1e-9), t[b][y][x]
                good.append(max(d / truth, truth / d) < 1.25)
    elif kind == "normals":
        for b, y, x in places:
            n, truth = [p[b][c][y][x] for c in range(3)], [t[b][c][y][x] for c in range(3)]
            if any(truth):
                cosine = sum(u * v for u, v in zip(n, truth, strict=True)) / math.hypot(*n) / math.hypot(*truth)
                good.append(math.degrees(math.acos(min(1, cosine))) < 30)
    else:
        pairs = [(p[b][0][y][x] > 0, t[b][y][x] == 1) for b, y, x in places if t[b][y][x] != 255]
        hits = sum(found and true for found, true in pairs)
        return 2 * hits / (sum(found for found, _ in pairs) + sum(true for _, true in pairs))
    return sum(good) / len(good)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_indicators(kind, seed):
    task, prediction, target = make(kind, seed)
    expected = reference(kind, prediction, target)
    assert 0 < expected < 1
    value = task.indicator(prediction.requires_grad_(), target)
    assert value.item() == pytest.approx(expected) and value.shape == () and value.dtype == torch.float32
    assert not value.requires_grad


@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_a_batch_add_up(kind):
    task, prediction, target = make(kind)
    counts = sum(task.indicator_counts(prediction[part], target[part]) for part in (slice(0, 1), slice(1, None)))
    assert torch.equal(counts, task.indicator_counts(prediction, target)) and counts.dtype == torch.float64
    assert task.indicator(prediction, target).item() == pytest.approx((counts[0] / counts[1]).item())


@pytest.mark.parametrize("kind", KINDS)
def test_no_labels(kind):
    task, prediction, target = make(kind)
    target = torch.full_like(target, task.ignored)
    assert task.indicator(prediction, target) == 0 or kind in ("edge", "saliency")
    assert task.indicator_counts(prediction, target).tolist() == [0, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_and_no_waiting(kind):
    task, prediction, target = make(kind)
    half = task.indicator(prediction.bfloat16(), target)
    assert half.item() == pytest.approx(reference(kind, prediction.bfloat16(), target))
    assert task.indicator(prediction.to("meta"), target.to("meta")).shape == ()


def test_a_task_without_an_indicator_says_so():
    class Mine(type(build_task("depth", "depth"))):
        indicator_counts = Task.indicator_counts

    with pytest.raises(UserError, match="^task 'mine' has no key performance indicator, which the balance asks for"):
        Mine().bind("mine").indicator(torch.ones(1, 1, 2, 2), torch.ones(1, 2, 2))
