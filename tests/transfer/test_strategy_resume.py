"""Every strategy goes on bit for bit from a checkpoint in the middle of an epoch."""

from __future__ import annotations

import pytest
import torch
from accelerate.state import AcceleratorState
from uneven import make

from harness.checkpoint import load_file
from harness.files import write_atomically
from transfer.data.loading import Augmented, collate
from transfer.strategies import balances, build_balance, partitions, schedules

NET = "{channels: [16, 16, 32, 32]}"
COOPERATIVE = ["--model.name", "cooperative", "--schedule.inner_steps", "2", "--schedule.kl_weight", "0.1",
               "--schedule.warmup", "2", "--schedule.samples", "2", "--optimizer.momentum", "0"]


def remembers(name):
    """Whether a rule has anything that could be lost; those that have not resume as the plain sum does."""
    rule = build_balance(name, ["a", "b"])
    return bool(rule.state_dict()) or list(rule.parameters()) or name in ("equal", "cagrad")


CASES = [
    *(pytest.param(["--balance.name", name], marks=[] if remembers(name) else pytest.mark.slow, 
                   id=f"--balance.name {name}")
      for name in balances()),
    *(["--schedule.name", name, "--schedule.track_distance", "true", *(COOPERATIVE if name == "cooperative" else [])]
      for name in schedules() if name != "maxl"),
    *(["--partition.name", name] for name in partitions()),
    ["--schedule.name", "individual_optimizers", "--balance.name", "uncertainty", "--optimizer.name", "adam"],
    ["--partition.name", "maximum_roaming", "--partition.delta", "0.3", "--schedule.name", "individual_optimizers"],
    ["--balance.name", "mgda", "--balance.update_every", "3"],
]


pytestmark = pytest.mark.usefixtures("fresh_accelerator")


def run(transfer, steps):
    """Further steps; every epoch has 3 of them. Returns what they logged."""
    samples = Augmented(transfer.train_split, transfer.tasks, transfer.config.augmentation.build(), 0)
    order, log = list(transfer.batches), []
    for number in range(transfer.step, transfer.step + steps):
        transfer.train_step(collate([samples[index] for index in order[number]], transfer.tasks))
        log.append(transfer.log_values())
        if transfer.step % 3 == 0:
            transfer.objective.end_of_epoch()
    return log


@pytest.mark.parametrize("options", CASES, ids=" ".join)
def test_goes_on_bit_for_bit(options, tmp_path):
    options = [NET, "--tasks", "[semseg, depth, scene]", "--epochs", "3", *options]
    whole = make(options)
    run(whole, 4)
    write_atomically(tmp_path / "last.pt", lambda file: torch.save(whole.state_dict(), file))
    expected = run(whole, 3)  # past the end of an epoch
    AcceleratorState._reset_state(True)
    resumed = make(options)
    resumed.load_state_dict(tmp_path / "last.pt")
    assert resumed.step == 4 and run(resumed, 3) == expected
    mine, theirs = resumed.state_dict(), whole.state_dict()
    for part in ("model", "balance", "objective", "schedule", "optimizer"):
        assert same(mine[part], theirs[part]), part
    assert load_file(tmp_path / "last.pt")["step"] == 4  # plain data and tensors alone


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b or a != a
