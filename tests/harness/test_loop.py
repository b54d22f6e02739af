from __future__ import annotations

import math
import os
import signal
import threading

import pytest
import torch
from accelerate import Accelerator

from harness.checkpoint import load_file
from harness.errors import UserError
from harness.interrupts import Interrupts
from harness.loop import LoopConfig, train
from harness.run import Run, read_metrics
from harness.sampling import Batches


class Counting:
    """A trainee whose loss is what ``losses`` says for a step, 1 otherwise; so for a weight after it."""

    def __init__(self, losses=None, at=None, best=(), lines=(), weights=None):
        self.weight, self.weights = torch.nn.Parameter(torch.ones(2)), weights or {}
        self.optimizer = torch.optim.SGD([self.weight, torch.nn.Parameter(torch.ones(3, 2))])
        self.step, self.seconds = 0, 0.0
        self.losses, self.at, self.best, self.lines = losses or {}, at or {}, best, lines
        self.batches = Batches(23, 5, 3, seed=0)
        self.loss = torch.tensor(1.0)
        self.seen = []

    def train_step(self, batch):
        self.seen.append(batch)
        if self.step in self.at:
            self.at[self.step]()
        self.loss = torch.tensor(float(self.losses.get(self.step, 1.0)))
        self.step += 1
        self.weight.data[1] = self.weights.get(self.step, 1.0)

    def log_values(self):
        return {"loss": self.loss.item(), "seen": len(self.seen)}

    def end_of_epoch(self, epoch):
        return ({"score": epoch} if epoch in self.lines else {}), epoch in self.best

    def state_dict(self):
        return {"step": self.step, "seconds": self.seconds}


@pytest.fixture
def go(tmp_path):
    def start(trainee, **config):
        world = Accelerator(cpu=True)
        with Run(tmp_path, LoopConfig()) as run:
            run.begin(trainee.step)
            return train(trainee, trainee.batches, run, world, LoopConfig(trackers=[], **config), "test")

    return start


def test_trains_logs_and_saves(go, tmp_path):
    trainee = Counting(best=(2,), lines=(1, 3))
    assert go(trainee, log_steps=4) == 0
    assert trainee.step == 15 and trainee.seen == list(Batches(23, 5, 3, seed=0))
    lines = read_metrics(tmp_path)
    assert [(line["step"], line["epoch"], line.get("score")) for line in lines] == [
        (4, 0, None), (5, 0, 1), (8, 1, None), (12, 2, None), (15, 2, None), (15, 2, 3)]
    assert lines[0]["time"]["images_per_second"] > 0 and 0 <= lines[0]["time"]["waiting_for_data"] <= 1
    last = load_file(tmp_path / "checkpoints" / "last.pt")
    assert last["step"] == 15 and last["seconds"] > 0
    assert load_file(tmp_path / "checkpoints" / "best.pt")["step"] == 10


@pytest.mark.parametrize("save_steps, saved", [(0, [5, 10, 15]), (4, [4, 8, 12, 15])])
def test_when_it_saves(go, tmp_path, save_steps, saved, monkeypatch):
    from harness.checkpoint import CheckpointStore

    steps = []
    monkeypatch.setattr(CheckpointStore, "save", lambda self, state, best=False: steps.append(state["step"]))
    go(Counting(), save_steps=save_steps)
    assert steps == saved


def test_saves_by_time(go, monkeypatch):
    from harness.checkpoint import CheckpointStore

    steps = []
    monkeypatch.setattr(CheckpointStore, "save", lambda self, state, best=False: steps.append(state["step"]))
    go(Counting(), save_steps=1000, save_minutes=1e-9)
    assert steps == list(range(1, 16))


def test_goes_on_where_it_was(go, tmp_path):
    trainee = Counting()
    trainee.step = 7
    assert go(trainee, log_steps=100) == 0
    assert trainee.seen == list(Batches(23, 5, 3, seed=0))[7:]
    trainee.seen.clear()
    assert go(trainee) == 0 and trainee.seen == [], "nothing is left to do"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_finishes_the_step_saves_and_leaves(go, tmp_path, number):
    before = signal.getsignal(number)
    trainee = Counting(at={6: lambda: os.kill(os.getpid(), number)})
    assert go(trainee, save_steps=1000) == 128 + number
    assert trainee.step == 7 == load_file(tmp_path / "checkpoints" / "last.pt")["step"]
    assert signal.getsignal(number) == before
    assert go(trainee) == 0 and trainee.seen == list(Batches(23, 5, 3, seed=0))


def test_the_second_signal_acts_as_usual():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell starts with &
    try:
        _send_two_interrupts()
    finally:
        signal.signal(signal.SIGINT, before)


def _send_two_interrupts():
    with pytest.raises(KeyboardInterrupt), Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.received == signal.SIGINT and interrupts.exit_code == 130
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(5)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("log_steps", [1, 100])
def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(go, tmp_path, value, log_steps):
    trainee = Counting(losses={7: value})  # finite again afterwards, which does not help
    with pytest.raises(UserError) as caught:
        go(trainee, log_steps=log_steps)
    at = 8 if log_steps == 1 else 10
    last = tmp_path / "checkpoints" / "last.pt"
    assert str(caught.value) == (
        f"the loss is not finite any more by step {at} (epoch 1). Lower --optimizer.lr, or set --mixed_precision to no "
        f"or bf16, and go on from the last good checkpoint with --resume {last} --name NEW")
    assert load_file(last)["step"] == 5
    assert all(math.isfinite(line["loss"]) for line in read_metrics(tmp_path))


def test_weights_that_give_a_loss_that_is_not_finite_are_taken_back(go, tmp_path):
    """Saved after step 7, finite still; the loss of step 8 tells that they were no good."""
    with pytest.raises(UserError, match="the loss is not finite any more by step 8 .*--resume .*last.pt --name NEW"):
        go(Counting(losses={7: math.nan}), save_steps=1, log_steps=100)
    assert os.listdir(tmp_path / "checkpoints") == ["last.pt"]
    assert load_file(tmp_path / "checkpoints" / "last.pt")["step"] == 6


def test_without_any_good_checkpoint(go, tmp_path):
    with pytest.raises(UserError, match="by step 2 .*, and start again with --name NEW$"):
        go(Counting(losses={1: math.inf}), save_steps=1, log_steps=100)
    assert os.listdir(tmp_path / "checkpoints") == []


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e38])
def test_weights_that_are_not_finite_are_not_saved(go, tmp_path, value):
    with pytest.raises(UserError, match=r"the weights are not finite any more after step 7 \(epoch 1\)"):
        go(Counting(weights={7: value}), save_steps=1)
    assert load_file(tmp_path / "checkpoints" / "last.pt")["step"] == 6


def test_a_checkpoint_stays_on_trial_when_the_run_is_stopped(go, tmp_path):
    assert go(Counting(at={6: lambda: os.kill(os.getpid(), signal.SIGTERM)})) == 128 + signal.SIGTERM
    last = tmp_path / "checkpoints" / "last.pt"
    assert load_file(last)["step"] == 7
    trainee = Counting(losses={7: math.nan})
    trainee.step = 7
    with pytest.raises(UserError, match="by step 8"):
        go(trainee, log_steps=100)
    assert load_file(last)["step"] == 5
    trainee = Counting()
    trainee.step = 5
    assert go(trainee) == 0 and os.listdir(last.parent) == ["last.pt"], "the end leaves no trace"


def test_before_a_save_all_processes_are_called(tmp_path):
    calls = []
    with Run(tmp_path, LoopConfig(), main=False) as run:
        trainee = Counting()
        train(trainee, trainee.batches, run, Accelerator(cpu=True), LoopConfig(trackers=[]), "test",
              before_save=lambda: calls.append(trainee.step))
    assert calls == [5, 10, 15]
