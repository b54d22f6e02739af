"""Signals of a cluster, from the process's side; no SLURM is needed."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from types import SimpleNamespace

import pytest

pytest.importorskip("submitit", reason="submitit is not installed: pip install 'submitit>=1.5.4,<1.6'")

from harness.errors import UserError
from harness.interrupts import ORDERS, Interrupts
from slurm.job import TrainingJob
from slurm.requeue import Requeue


@pytest.fixture(autouse=True)
def as_before():
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGCONT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    ORDERS.save_only, ORDERS.pending = frozenset(), 0


def test_signals_of_a_cluster():
    ORDERS.save_only = frozenset({signal.SIGTERM})
    with Interrupts() as interrupts:
        assert interrupts.asked() == 0
        for _ in range(2):  # SIGTERM is never the end
            os.kill(os.getpid(), signal.SIGTERM)
            assert (interrupts.asked(), interrupts.asked()) == (1, 0)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGUSR2)
        assert (interrupts.asked(), interrupts.asked()) == (signal.SIGUSR2, signal.SIGUSR2)


def test_a_signal_before_the_loop():
    interrupts = Interrupts()
    ORDERS.pending = signal.SIGUSR2  # at the last moment
    with interrupts:
        assert interrupts.asked() == signal.SIGUSR2


def job(rank: int = 0) -> SimpleNamespace:
    return SimpleNamespace(global_rank=rank, cluster="slurm")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_comes_to_no_step(rank, monkeypatch):
    """It waits in a call that runs no Python, as for a process that hangs; the first process starts the clock."""
    late = []

    def now(self: Requeue) -> None:
        late.append(time.monotonic())
        raise SystemExit(0)

    signal.signal(signal.SIGUSR2, lambda *given: None)
    monkeypatch.setattr(Requeue, "now", now)
    monkeypatch.setattr(os, "_exit", lambda code: None)
    with Requeue(job(rank), 0.15):
        ctypes.CDLL(None).system(b"kill -USR2 $PPID; sleep 0.5")
        assert [time.monotonic() - at > 0.2 for at in late] == [True] * (rank == 0)
        assert ORDERS.pending == signal.SIGUSR2
    with Requeue(job(rank), 0.15):
        os.kill(os.getpid(), signal.SIGUSR2)
    time.sleep(0.2)
    assert len(late) == (rank == 0), "the clock goes on behind the end"


@pytest.mark.parametrize("rank", [0, 1])
def test_the_first_process_starts_the_job_again(rank):
    called = []
    signal.signal(signal.SIGUSR2, lambda *given: called.append(given))
    with Requeue(job(rank), 60) as requeue:
        assert ORDERS.save_only == {signal.SIGTERM}, "SIGTERM would end the run, and not only save"
        with pytest.raises(SystemExit) as end:
            requeue.now()
    assert end.value.code == 0 and called == [(signal.SIGUSR2, None)] * (rank == 0)


@pytest.mark.parametrize(("error", "code", "left"), [
    ("RuntimeError", 1, []), ("harness.errors.UserError", 2, ["mistake-5"]), ("SystemExit", 1, []),
])
def test_what_a_process_leaves(error, code, left, tmp_path, monkeypatch, capsys):
    """No result after a crash, its own or that of an earlier start, which look like success; a word to the script."""
    for name, value in (("SUBMITIT_EXECUTOR", "slurm"), ("SLURM_JOB_ID", "5"), ("SUBMITIT_FOLDER", tmp_path / "jobs")):
        monkeypatch.setenv(name, str(value))
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "5_0_result.pkl").touch()
    environment = dict(os.environ)
    (tmp_path / f"failing_{code}_{len(left)}.py").write_text(
        f"import harness.errors\ndef main():\n    raise {error}('no luck')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("sys.argv", [])
    try:
        with pytest.raises(SystemExit) as end:
            TrainingJob(f"failing_{code}_{len(left)}")()
    finally:
        os.environ.clear()
        os.environ.update(environment)
    assert end.value.code == code and [path.name for path in (tmp_path / "jobs").iterdir()] == left
    assert error == "SystemExit" or "no luck" in capsys.readouterr().err


def test_what_every_later_start_is_told(tmp_path, monkeypatch):
    """SLURM itself starts what was submitted first, and only counts; submitit what it was given for it."""
    (tmp_path / "telling.py").write_text("import sys\ndef main():\n    return sys.argv\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("sys.argv", [])
    first = TrainingJob("telling", ["--resume=never"], later=["--resume=auto"])
    assert first._main() == ["telling", "--resume=never"]
    again = first.checkpoint().function
    assert again._main() == ["telling", "--resume=never", "--resume=auto"]
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert first._main() == ["telling", "--resume=never", "--resume=auto"]


def test_gpus_that_are_not_there(monkeypatch):
    import torch

    from slurm.environment import check_devices

    for there in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        check_devices(0)
        if there:
            check_devices(2)
        else:
            with pytest.raises(UserError, match="2 GPUs were asked for on .* and torch sees none"):
                check_devices(2)
