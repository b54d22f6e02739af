"""Label propagation against loops over every pair of places."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from pretrain.evaluation.propagation import Propagation


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def slowly(features, labels, *, top, context, radius, temperature, first_anywhere):
    """All frames after the first, place by place."""
    height, width = features[0].shape[1:]
    unit = [F.normalize(frame.double(), dim=0) for frame in features]
    known = [labels.double()]
    for now in range(1, len(features)):
        sources = sorted({0, *range(max(0, now - context), now)})
        result = torch.zeros_like(known[0])
        for y in range(height):
            for x in range(width):
                found = []
                for frame in sources:
                    for v in range(height):
                        for u in range(width):
                            free = first_anywhere and frame == 0
                            if free or math.hypot(v - y, u - x) <= radius:
                                found.append((float(unit[now][:, y, x] @ unit[frame][:, v, u]), frame, v, u))
                best = sorted(found, reverse=True)[:top]
                weights = [math.exp(similar / temperature) for similar, *_ in best]
                for weight, (_, frame, v, u) in zip(weights, best, strict=True):
                    result[:, y, x] += weight / sum(weights) * known[frame][:, v, u]
        known.append(result)
    return known[1:]


@pytest.mark.parametrize(("size", "options"), [
    ((5, 7), {"top": 4, "context": 2, "radius": 2, "first_anywhere": False}),
    ((5, 7), {"top": 4, "context": 1, "radius": 1, "first_anywhere": True}),
    ((6, 3), {"top": 300, "context": 20, "radius": 12, "first_anywhere": False}),  # fewer places than wanted
    ((1, 9), {"top": 3, "context": 0, "radius": 5, "first_anywhere": False}),  # the first frame only
    ((4, 4), {"top": 2, "context": 3, "radius": 0, "first_anywhere": False}),
])
def test_as_a_loop_over_all_pairs(size, options):
    options["temperature"] = 0.2
    features = [drawn(6, *size, seed=seed) for seed in range(5)]
    labels = drawn(3, *size, seed=9).softmax(0)
    for tile in (None, 1, 2, 3, 8):
        if options["radius"] == 12 and tile == 1:
            continue  # 625 tiles around each
        moving = Propagation(features[0], labels, tile=tile, **options)
        for frame, truth in zip(features[1:], slowly(features, labels, **options), strict=True):
            torch.testing.assert_close(moving.step(frame).double(), truth, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("down", "right"), [(1, 0), (0, -1), (-1, 1)])
def test_features_that_move_take_their_labels_along(down, right):
    world, names = drawn(16, 40, 40), drawn(4, 40, 40, seed=1).argmax(0)

    def window(maps, number):
        top, left = 15 - number * down, 15 - number * right
        return maps[..., top : top + 9, left : left + 11]

    moving = Propagation(window(world, 0), F.one_hot(window(names, 0), 4).permute(2, 0, 1).float(), top=1, radius=2)
    still = torch.ones(9, 11, dtype=torch.bool)
    for number in range(1, 5):
        found = moving.step(window(world, number)).argmax(0)
        # what came in over the border has no labels of its own
        seen = still.clone()
        seen[: max(0, number * down)] = seen[9 + min(0, number * down) :] = False
        seen[:, : max(0, number * right)] = seen[:, 11 + min(0, number * right) :] = False
        assert seen.sum() > 20
        assert torch.equal(found[seen], window(names, number)[seen])


def test_labels_stay_shares_of_one():
    moving = Propagation(drawn(8, 13, 10), drawn(5, 13, 10, seed=1).softmax(0))
    for seed in range(2, 5):
        labels = moving.step(drawn(8, 13, 10, seed=seed))
        assert labels.shape == (5, 13, 10) and labels.min() >= 0
        torch.testing.assert_close(labels.sum(0), torch.ones(13, 10))


def test_only_the_last_frames_and_the_first_are_looked_at():
    """A frame that has left the context has no effect."""
    features = [drawn(6, 4, 5, seed=seed) for seed in range(6)]
    labels = drawn(2, 4, 5, seed=7).softmax(0)
    results = []
    for second in (features[1], drawn(6, 4, 5, seed=99)):
        # two frames of context: the last step sees frames 0, 3 and 4, whose labels come from the first frame alone
        moving = Propagation(features[0], labels, context=2, top=1, radius=9)
        moving.step(second)
        for frame in features[2:]:
            moving.recent[-1].labels.copy_(moving.first.labels)
            last = moving.step(frame)
        results.append(last)
    assert torch.equal(*results)
