"""How many data workers there are by default, and what is said of too many."""

from __future__ import annotations

import warnings

import pytest
from torch.utils.data import DataLoader

from harness import seeding
from harness.config import identity, load


@pytest.mark.parametrize("cores, expected", [(1, 1), (2, 2), (4, 4), (64, 4)])
def test_the_default_is_capped_and_is_no_part_of_a_run(monkeypatch, cores, expected):
    from pretrain.config import PretrainConfig
    from transfer.config import TransferConfig

    for config in (TransferConfig, PretrainConfig):
        monkeypatch.setattr(seeding, "available_cores", lambda: cores)
        there = load(config, [])
        monkeypatch.setattr(seeding, "available_cores", lambda: 64)
        here = load(config, [])
        assert (there.workers, here.workers) == (expected, 4) and identity(there) == identity(here)
        assert load(config, ["--workers=7"]).workers == 7


def test_too_many_are_told_once_in_a_line(monkeypatch, capsys):
    monkeypatch.setattr(seeding, "available_cores", lambda: 2)
    seeding.note_workers.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        for workers in (0, 2, 999, 999):
            seeding.note_workers(workers)
        DataLoader([1], num_workers=999)
    assert not caught
    said = capsys.readouterr().err
    assert said == "--workers 999: only 2 cores are available, so that as many workers would do\n"
    seeding.note_workers.cache_clear()
