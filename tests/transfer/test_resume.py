"""Fine-tuning that is killed or stopped goes on bit for bit."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

OPTIONS = ["--workers=1", "--loop.save_steps=2", "--data.train_count=14", "--model.head=deeplab",
           "--evaluation.every=3", "--evaluation.select=best"]
"""A last partial batch, dropout, validation in between, and a worker."""


def test_goes_on_after_a_kill(programs, wait_for_step, same_runs):
    """SIGKILL at a random moment."""
    options = [*OPTIONS, "--epochs=7"]
    target = random.SystemRandom().randint(1, 14)
    process = programs.start("transfer", "--output=killed", *options)
    wait_for_step(process, programs.folder / "killed", target)
    time.sleep(random.random() * 0.1)
    process.kill()
    process.wait()
    assert not (programs.folder / "killed" / "results.json").exists()
    assert programs.main("transfer", "--output=whole", *options).code == 0
    rest = programs.main("transfer", "--output=killed", *options)
    assert rest.code == 0, rest.err
    same_runs(programs.folder / "whole", programs.folder / "killed")


def test_asked_to_stop(programs, same_runs, monkeypatch):
    """SIGTERM in the middle of a step: the step is finished, everything is saved."""
    from transfer.engine import Transfer

    options = [*OPTIONS, "--epochs=4", "--loop.save_steps=1000"]
    step = Transfer.train_step

    def interrupted(self, batch):
        if self.step == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Transfer, "train_step", interrupted)
        stopped = programs.main("transfer", "--output=stopped", *options)
    assert stopped.code == 143 and "stopped by signal 15 at step 7" in stopped.out
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    folder = programs.folder / "stopped"
    assert (folder / "checkpoints" / "last.pt").exists() and not (folder / "results.json").exists()
    assert programs.main("transfer", "--output=whole", *options).code == 0
    rest = programs.main("transfer", "--output=stopped", *options)
    assert rest.code == 0 and "continues stopped/checkpoints/last.pt at step 7" in rest.out
    same_runs(programs.folder / "whole", folder)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_kills(programs, wait_for_step, logged_step, same_runs):
    """SIGKILL ten times, after random numbers of steps or seconds, also while starting and saving."""
    options = [*OPTIONS, "--epochs=24"]
    folder, draw = programs.folder / "killed", random.SystemRandom()
    for number in range(10):
        process = programs.start("transfer", "--output=killed", *options)
        if number % 3 == 2:
            time.sleep(draw.uniform(0, 10))
        else:
            wait_for_step(process, folder, logged_step(folder) + draw.randint(1, 5))
            time.sleep(draw.random() * 0.1)
        os.killpg(process.pid, signal.SIGKILL) if number % 2 else process.kill()
        process.wait()
    assert programs.main("transfer", "--output=whole", *options).code == 0
    rest = programs.main("transfer", "--output=killed", *options)
    assert rest.code == 0, rest.err
    same_runs(programs.folder / "whole", folder)
