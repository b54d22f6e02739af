"""Queues: order, alignment, state."""

from __future__ import annotations

import io

import pytest
import torch

from harness.errors import UserError
from pretrain.queues import Queues


def rows(start, count, channels):
    """Rows that say which image they are: every value is its number."""
    return torch.arange(start, start + count, dtype=torch.float32)[:, None].expand(count, channels)


def slow_queue(size, batches):
    """One row at a time into a ring."""
    ring, place, number = [-1] * size, 0, 0
    for count in batches:
        for _ in range(count):
            ring[place] = number
            place, number = (place + 1) % size, number + 1
    return ring, place


@pytest.mark.parametrize(
    "batches", [[4], [4, 4, 4, 4], [3, 3, 3, 3, 1], [10], [11, 2], [27, 3], [10, 10, 5], [0, 3]]
)
def test_order_and_alignment_for_any_batch(batches):
    queues = Queues(10, 4, 6)
    start_head = queues.head.clone()
    first = 0
    for count in batches:
        queues.enqueue(rows(first, count, 4), rows(first, count, 6), torch.arange(first, first + count))
        first += count
    expected, place = slow_queue(10, batches)
    assert queues.index.tolist() == expected and queues.pointer == place
    for slot, number in enumerate(expected):
        if number >= 0:
            assert (queues.head[slot] == number).all() and (queues.backbone[slot] == number).all()
        else:
            assert torch.equal(queues.head[slot], start_head[slot])


def test_starts_with_random_unit_vectors_of_the_seed():
    queues = Queues(50, 8, 16)
    for queue in (queues.head, queues.backbone):
        torch.testing.assert_close(queue.norm(dim=1), torch.ones(50))
    assert torch.equal(queues.head, Queues(50, 8, 16).head)
    assert not torch.equal(queues.head, Queues(50, 8, 16, seed=1).head)
    assert queues.filled() == 0 and torch.isnan(queues.age())


def test_state_is_complete():
    queues = Queues(10, 4, 6, torch.float16)
    for first in (0, 3, 6, 9):
        queues.enqueue(rows(first, 3, 4), rows(first, 3, 6), torch.arange(first, first + 3))
    file = io.BytesIO()
    torch.save(queues.state_dict(), file)
    file.seek(0)
    copy = Queues(10, 4, 6, torch.float16, seed=5)
    copy.load_state_dict(torch.load(file, weights_only=True))
    for queue in (queues, copy):
        queue.enqueue(rows(12, 4, 4), rows(12, 4, 6), torch.arange(12, 16))
    assert copy.pointer == queues.pointer == 6 and copy.batches == 5
    assert copy.head.dtype == torch.float16
    for name, value in queues.named_buffers():
        assert torch.equal(value, dict(copy.named_buffers())[name])


def test_age_and_filled():
    queues = Queues(8, 2)
    for _ in range(3):
        queues.enqueue(torch.zeros(2, 2))
    assert queues.filled() == 0.75
    assert queues.age() == 1  # (2 + 1 + 0) / 3
    queues.enqueue(torch.zeros(4, 2))
    assert queues.age() == (2 * 2 + 1 * 2 + 0 * 4) / 8


def test_stays_in_place_and_keeps_no_graph():
    queues = Queues(8, 2, 3)
    address = queues.head.data_ptr()
    queues.enqueue(torch.ones(3, 2, requires_grad=True), torch.ones(3, 3, requires_grad=True))
    assert queues.head.data_ptr() == address and not queues.head.requires_grad
    assert (queues.index == -1).all()


def test_writing_before_the_backward_pass_is_caught():
    queues = Queues(8, 2)
    query = torch.ones(1, 2, requires_grad=True)
    loss = (query @ queues.head.T).logsumexp(1).sum()
    queues.enqueue(torch.zeros(2, 2))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize(
    "queues,arguments,message",
    [(Queues(8, 2, 3), (torch.zeros(2, 2),), "none was given"),
     (Queues(8, 2), (torch.zeros(2, 2), torch.zeros(2, 3)), "there is no queue"),
     (Queues(8, 2), (torch.zeros(2, 5),), r"give \[2, 2\]"),
     (Queues(8, 2, 3), (torch.zeros(2, 2), torch.zeros(3, 3)), r"give \[2, 3\]"),
     (Queues(8, 2), (torch.zeros(2, 2), None, torch.zeros(3)), "index")],
)
def test_what_does_not_fit_is_refused(queues, arguments, message):
    with pytest.raises(UserError, match=message):
        queues.enqueue(*arguments)


def test_size_is_checked():
    with pytest.raises(UserError, match="size is 0"):
        Queues(0, 4)
