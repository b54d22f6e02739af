"""Neighbour search: engines agree with each other and with a full sort."""

from __future__ import annotations

import types

import pytest
import torch
import torch.nn.functional as F

from harness.errors import UserError
from pretrain import neighbors
from pretrain.neighbors import NEIGHBORS, TorchSearch


def features(count, channels=32, seed=0):
    return F.normalize(torch.randn(count, channels, generator=torch.Generator().manual_seed(seed)), dim=1)


@pytest.mark.parametrize("name", NEIGHBORS.names())
def test_equals_a_full_sort(name):
    query, queue = features(7).requires_grad_(), features(101, seed=1)
    found = NEIGHBORS.get(name)()(query, queue, 9)
    expected = torch.stack([(queue @ row).argsort(descending=True)[:9] for row in query.detach()])
    assert found.dtype == torch.int64 and torch.equal(found, expected)


def test_torch_and_faiss_agree():
    pytest.importorskip("faiss")
    query, queue = features(320, 128), features(8192, 128, seed=1)
    ours, theirs = (NEIGHBORS.get(name)()(query, queue, 20) for name in ("torch", "faiss"))
    shared = sum(len(set(a) & set(b)) for a, b in zip(ours.tolist(), theirs.tolist(), strict=True))
    assert shared / ours.numel() >= 0.9997


def test_parts_give_the_same():
    query, queue = features(50), features(200, seed=1)
    assert torch.equal(TorchSearch(rows=7)(query, queue, 5), TorchSearch()(query, queue, 5))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", NEIGHBORS.names())
def test_half_precision_queue(name, dtype):
    queue = features(300, seed=1)
    query = queue[:20]
    found = NEIGHBORS.get(name)()(query, queue.to(dtype), 3)
    assert torch.equal(found[:, 0], torch.arange(20))


def test_two_builds_of_faiss_are_refused(monkeypatch):
    pytest.importorskip("faiss")

    def install(*names):
        found = [types.SimpleNamespace(metadata={"Name": name}) for name in ("torch", *names)]
        monkeypatch.setattr(neighbors, "distributions", lambda: found)

    for names in (["faiss-cpu"], ["faiss-gpu"], ["faiss_gpu_cu12"]):
        install(*names)
        NEIGHBORS.get("faiss")()
    install("faiss-cpu", "faiss_gpu-cu12")
    with pytest.raises(UserError, match=r"both faiss-cpu and faiss-gpu-cu12 are installed.*pip uninstall faiss-cpu "
                                        r"faiss-gpu-cu12\)"):
        NEIGHBORS.get("faiss")()


def test_bad_requests_are_refused():
    for name in NEIGHBORS.names():
        with pytest.raises(UserError, match="11 neighbours of a queue of 10"):
            NEIGHBORS.get(name)()(features(2), features(10), 11)
        with pytest.raises(UserError, match="channels"):
            NEIGHBORS.get(name)()(features(2), features(10, 16), 1)
    with pytest.raises(UserError, match="rows"):
        TorchSearch(rows=0)
    with pytest.raises(UserError, match="torch"):
        NEIGHBORS.get("torhc")
