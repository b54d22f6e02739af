"""Losses: fixture, slow reference, gradients, statistics."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from harness.errors import UserError
from pretrain.losses import contrastive_losses, contrastive_terms

FIXTURE = Path(__file__).parent.parent / "fixtures" / "moco_losses.safetensors"
INPUTS = ("query", "key", "queue", "query_backbone", "queue_backbone")


def slow_losses(query, key, queue, query_backbone, queue_backbone, temperature, k):
    """The definitions, one view at a time."""
    instance, neighbour = [], []
    for b in range(query.shape[0]):
        for v in range(query.shape[1]):
            q = query[b, v]
            positive = torch.exp((q * key[b]).sum() / temperature)
            scores = torch.stack([torch.exp((q * entry).sum() / temperature) for entry in queue])
            instance.append(-torch.log(positive / (positive + scores.sum())))
            nearest = sorted(
                range(len(queue)), key=lambda i: -(query_backbone[b, v] @ queue_backbone[i]).item()
            )[:k]
            neighbour.append(sum(-torch.log(scores[i] / scores.sum()) for i in nearest) / k)
    return torch.stack(instance).mean(), torch.stack(neighbour).mean()


def random_inputs(batch=3, views=4, channels=8, backbone=12, queue=23, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def unit(*shape):
        return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1).to(dtype)

    return {
        "query": unit(batch, views, channels), "key": unit(batch, channels), "queue": unit(queue, channels),
        "query_backbone": unit(batch, views, backbone), "queue_backbone": unit(queue, backbone),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fixture(dtype):
    data = load_file(FIXTURE)
    inputs = {name: data[name].to(dtype) for name in INPUTS}
    instance, neighbour = contrastive_losses(**inputs, temperature=0.2, neighbors=7)
    assert instance.dtype == neighbour.dtype == dtype
    assert abs(instance.item() - data["instance_loss"].item()) < 1e-5
    assert abs(neighbour.item() - data["neighbor_loss"].item()) < 1e-5
    assert abs(instance.item() - 5.285154) < 1e-5
    assert abs(neighbour.item() - 5.308259) < 1e-5


@pytest.mark.parametrize("views,k", [(1, 1), (4, 5), (5, 23)])
def test_values_and_gradients_equal_a_slow_reference(views, k):
    inputs = random_inputs(views=views)
    ours = {name: value.clone().requires_grad_() for name, value in inputs.items()}
    slow = {name: value.clone().requires_grad_() for name, value in inputs.items()}
    for weight in (0.0, 1.0):  # each loss alone reaches the query with the right gradient
        for leaf in (*ours.values(), *slow.values()):
            leaf.grad = None
        instance, neighbour = contrastive_losses(**ours, temperature=0.2, neighbors=k)
        reference = slow_losses(**slow, temperature=0.2, k=k)
        torch.testing.assert_close((instance, neighbour), reference, rtol=0, atol=1e-12)
        ((1 - weight) * instance + weight * neighbour).backward()
        ((1 - weight) * reference[0] + weight * reference[1]).backward()
        torch.testing.assert_close(ours["query"].grad, slow["query"].grad, rtol=0, atol=1e-12)
        assert all(ours[name].grad is None for name in INPUTS[1:])


def test_float32_gradient_equals_the_float64_reference():
    inputs = random_inputs()
    ours = inputs["query"].float().requires_grad_()
    rest = {name: inputs[name].float() for name in INPUTS[1:]}
    sum(contrastive_losses(ours, **rest, temperature=0.2, neighbors=5)).backward()
    slow = inputs["query"].clone().requires_grad_()
    sum(slow_losses(slow, *(inputs[name] for name in INPUTS[1:]), temperature=0.2, k=5)).backward()
    torch.testing.assert_close(ours.grad.double(), slow.grad, rtol=1e-4, atol=1e-6)


def test_without_neighbours_no_backbone_features_are_needed():
    inputs = random_inputs()
    both = contrastive_losses(**inputs, temperature=0.2, neighbors=3)
    instance, neighbour = contrastive_losses(inputs["query"], inputs["key"], inputs["queue"], temperature=0.2)
    assert instance == both[0] and neighbour == 0


def test_losses_stay_float32_under_autocast_and_with_half_queues():
    inputs = random_inputs(dtype=torch.float32)
    exact = contrastive_losses(**inputs, temperature=0.2, neighbors=5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = contrastive_losses(**inputs, temperature=0.2, neighbors=5)
    assert inside == exact
    for dtype in (torch.float16, torch.bfloat16):
        halved = {name: v.to(dtype) if "queue" in name else v for name, v in inputs.items()}
        losses = contrastive_losses(**halved, temperature=0.2, neighbors=5)
        assert all(loss.dtype == torch.float32 for loss in losses)
        torch.testing.assert_close(losses, exact, rtol=0.02, atol=0.02)


def test_terms_report_ranks_and_slots():
    inputs = random_inputs()
    terms = contrastive_terms(**inputs, temperature=0.2, neighbors=4)
    positive = (inputs["query"] * inputs["key"][:, None]).sum(-1)
    rank = (inputs["query"] @ inputs["queue"].T > positive[..., None]).sum(-1)
    assert terms.top1.item() == pytest.approx((rank < 1).double().mean().item() * 100)
    assert terms.top5.item() == pytest.approx((rank < 5).double().mean().item() * 100)
    expected = (inputs["query_backbone"] @ inputs["queue_backbone"].T).topk(4).indices
    assert torch.equal(terms.neighbors, expected)
    assert not terms.top1.requires_grad and not terms.neighbors.requires_grad


def test_extreme_temperature_does_not_overflow():
    inputs = random_inputs(dtype=torch.float32)
    losses = contrastive_losses(**inputs, temperature=1e-3, neighbors=5)
    assert all(torch.isfinite(loss) for loss in losses)


@pytest.mark.parametrize(
    "change,message",
    [({"temperature": 0}, "temperature"), ({"neighbors": 24}, "24 neighbours of a queue of 23"),
     ({"query_backbone": None}, "query_backbone"), ({"key": torch.zeros(2, 8)}, "do not fit"),
     ({"queue_backbone": torch.zeros(5, 12)}, "do not fit")],
)
def test_what_does_not_fit_is_refused(change, message):
    with pytest.raises(UserError, match=message):
        contrastive_losses(**{**random_inputs(), "temperature": 0.2, "neighbors": 3, **change})
