from __future__ import annotations

from collections import Counter

import pytest

from harness.errors import UserError
from harness.sampling import Batches


def joined(length, batch_size, epochs, world, **options):
    """Batches over all processes, in the order of their ranks."""
    parts = [list(Batches(length, batch_size, epochs, rank=rank, world=world, **options)) for rank in range(world)]
    assert len({len(part) for part in parts}) == 1
    for shares in zip(*parts, strict=True):
        assert len({len(share) for share in shares}) == 1, "every process has as many samples"
    return [sum(shares, []) for shares in zip(*parts, strict=True)]


def test_batches_are_the_same_for_any_number_of_processes():
    one = joined(50, 12, 3, 1, seed=4, drop_last=True)
    assert one == joined(50, 12, 3, 2, seed=4, drop_last=True) == joined(50, 12, 3, 3, seed=4, drop_last=True)
    assert len(one) == 12 and all(len(batch) == 12 for batch in one)


def test_an_epoch_has_every_sample_once_in_an_order_of_its_own():
    batches = Batches(23, 5, 4, seed=0, least=1)
    assert batches.steps_per_epoch == 5 and len(batches) == 20
    samples = [sample for batch in batches for sample in batch]
    assert Counter(samples) == Counter((epoch, i) for epoch in range(4) for i in range(23))
    orders = {tuple(i for e, i in samples if e == epoch) for epoch in range(4)}
    assert len(orders) == 4 and [sample[0] for sample in samples] == sorted(sample[0] for sample in samples)
    assert list(Batches(23, 5, 4, seed=1)) != list(Batches(23, 5, 4, seed=0))


@pytest.mark.parametrize("length, world, drop_last, least, last", [
    (23, 1, False, 2, 3), (23, 1, True, 2, 0), (21, 1, False, 2, 0), (21, 1, False, 1, 1), (27, 2, False, 2, 6),
    (23, 2, False, 1, 2), (23, 2, False, 2, 0), (20, 2, False, 2, 0),
])
def test_the_last_partial_batch(length, world, drop_last, least, last):
    batch = {1: 5, 2: 10}[world]
    batches = joined(length, batch, 2, world, seed=0, drop_last=drop_last, least=least)
    per_epoch = length // batch + bool(last)
    assert len(batches) == 2 * per_epoch
    assert [len(b) for b in batches[:per_epoch]] == [batch] * (length // batch) + [last] * bool(last)
    counts = Batches(length, batch, 2, seed=0, drop_last=drop_last, least=least, world=world)
    assert counts.images_per_epoch == sum(map(len, batches[:per_epoch]))


@pytest.mark.parametrize("drop_last", [True, False])
def test_goes_on_at_any_step(drop_last):
    whole = list(Batches(23, 5, 3, seed=2, drop_last=drop_last))
    for step in range(len(whole) + 1):
        batches = Batches(23, 5, 3, seed=2, drop_last=drop_last)
        batches.start = step
        assert list(batches) == whole[step:] and len(batches) == len(whole) - step
        assert batches.images_before(step) == sum(map(len, whole[:step]))


@pytest.mark.parametrize("length, batch, world, message", [
    (100, 5, 2, "batch_size 5 is over all processes: make it a multiple of the 2 there are"),
    (100, 2, 4, "batch_size 2 is over all processes: make it a multiple of the 4 there are"),
    (7, 8, 1, "7 samples do not fill a batch of 8: set --batch_size to at most 7"),
    (7, 8, 2, "7 samples do not fill a batch of 8: set --batch_size to at most 6"),
])
def test_mistakes_are_named(length, batch, world, message):
    with pytest.raises(UserError) as caught:
        Batches(length, batch, 1, seed=0, world=world, drop_last=True)
    assert str(caught.value) == message
