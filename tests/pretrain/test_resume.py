"""Pretraining that is killed or stopped goes on bit for bit."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

OPTIONS = ["--data.count=60", "--drop_last=false", "--workers=1", "--loop.save_steps=3"]
"""A last partial batch, a queue that the batch does not divide, and a worker."""
LATE = 9
"""Of the 12 steps of three epochs: after a checkpoint, and after those at which the run is killed."""


def test_goes_on_after_a_kill_and_when_asked_to_stop(programs, wait_for_step, same_runs, monkeypatch):
    """SIGKILL at a random moment between two checkpoints; then SIGTERM in the middle of a step: the step is finished,
    everything is saved, the exit code tells the signal."""
    from pretrain.engine import Pretraining

    options = [*OPTIONS, "--epochs=3"]
    step, folder = Pretraining.train_step, programs.folder / "broken"
    process = programs.start("pretrain", "--output=broken", *options)
    wait_for_step(process, folder, random.SystemRandom().randint(1, 5))
    time.sleep(random.random() * 0.1)
    process.kill()
    process.wait()
    assert not (folder / "results.json").exists()

    def interrupted(self, batch):
        if self.step == LATE:
            os.kill(os.getpid(), signal.SIGTERM)
        step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Pretraining, "train_step", interrupted)
        stopped = programs.main("pretrain", "--output=broken", *options)
    assert stopped.code == 143 and f"stopped by signal 15 at step {LATE + 1}" in stopped.out
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert (folder / "checkpoints" / "last.pt").exists() and not (folder / "results.json").exists()

    assert programs.main("pretrain", "--output=whole", *options).code == 0
    rest = programs.main("pretrain", "--output=broken", *options)
    assert rest.code == 0 and f"continues broken/checkpoints/last.pt at step {LATE + 1}" in rest.out, rest.err
    same_runs(programs.folder / "whole", folder)


@pytest.mark.slow
def test_a_program_asked_to_stop(programs, wait_for_step):
    """SIGTERM from outside, whenever it comes."""
    options = [*OPTIONS, "--epochs=40", "--loop.save_steps=1000"]
    folder = programs.folder / "stopped"
    process = programs.start("pretrain", "--output=stopped", *options)
    wait_for_step(process, folder, 2)
    process.terminate()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 143 and "Traceback" not in output, output
    assert "stopped by signal 15 at step" in output
    assert (folder / "checkpoints" / "last.pt").exists() and not (folder / "results.json").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_kills(programs, wait_for_step, logged_step, same_runs):
    """SIGKILL ten times, after random numbers of steps or seconds, also while starting and saving."""
    options = [*OPTIONS, "--epochs=80", "--loop.save_steps=2"]  # longer than ten turns take
    folder, draw = programs.folder / "killed", random.SystemRandom()
    for number in range(10):
        process = programs.start("pretrain", "--output=killed", *options)
        if number % 3 == 2:
            time.sleep(draw.uniform(0, 8))
        else:
            wait_for_step(process, folder, logged_step(folder) + draw.randint(1, 5))
            time.sleep(draw.random() * 0.1)
        os.killpg(process.pid, signal.SIGKILL) if number % 2 else process.kill()
        process.wait()
    assert programs.main("pretrain", "--output=whole", *options).code == 0
    rest = programs.main("pretrain", "--output=killed", *options)
    assert rest.code == 0, rest.err
    same_runs(programs.folder / "whole", folder)
