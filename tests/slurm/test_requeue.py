"""Signals of a cluster, from the process's side; no SLURM is needed."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from types import SimpleNamespace

import pytest

pytest.importorskip("submitit", reason="submitit is not installed: pip install 'submitit>=1.5.4,<1.6'")

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


@pytest.mark.parametrize(("error", "code", "left"), [
    ("RuntimeError", 1, []), ("harness.errors.UserError", 2, ["mistake-5"]), ("SystemExit", 1, []),
])
def test_what_a_process_leaves(error, code, left, tmp_path, monkeypatch, capsys):
    """No result after a crash, since submitit's file of an error looks like one of success; a word to the script."""
    for name, value in (("SUBMITIT_EXECUTOR", "slurm"), ("SLURM_JOB_ID", "5"), ("SUBMITIT_FOLDER", tmp_path / "jobs")):
        monkeypatch.setenv(name, str(value))
    (tmp_path / "jobs").mkdir()
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
