"""The same commands on a machine without SLURM."""

from __future__ import annotations

import pytest

pytest.importorskip("submitit", reason="submitit is not installed: pip install 'submitit>=1.5.4,<1.6'")
pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]


def test_pretraining_then_transfer(launch_here, tiny_pretraining, tiny_transfer, whole, same_runs, path_without_slurm):
    done = launch_here("--cluster=local", "--wait", "--", *tiny_pretraining("first"), "--then",
                       *tiny_transfer("--output=second"), PATH=path_without_slurm)
    assert done.code == 0 and len(done.jobs) == 2, (done.out, done.err)
    same_runs(whole(), launch_here.folder / "first")
    assert (launch_here.folder / "second" / "results.json").exists()


def test_in_this_process(launch_here, tiny_pretraining, whole, same_runs, path_without_slurm):
    done = launch_here("--cluster=debug", "--", *tiny_pretraining("run"), PATH=path_without_slurm)
    assert done.code == 0, (done.out, done.err)
    same_runs(whole(), launch_here.folder / "run")


def test_time_limit_reached(launch_here, tiny_pretraining, whole, same_runs, path_without_slurm):
    """After 25 seconds, at which the run waits for it; that leaves it minutes to save, on any machine."""
    done = launch_here("--cluster=local", "--time=5m", "--signal-delay=275", "--wait", "--",
                       *tiny_pretraining("broken", "--plugin=pace.py"), PATH=path_without_slurm,
                       TASKLIFT_TEST_HOLD="4", TASKLIFT_TEST_PACE="0")
    assert done.code == 0 and "stopped by signal 12" in done.out and "continues" in done.out, (done.out, done.err)
    same_runs(whole(), launch_here.folder / "broken")


def test_a_failed_run(launch_here, tiny_pretraining, tiny_transfer, path_without_slurm):
    done = launch_here("--cluster=local", "--wait", "--gpus-per-node=1", "--", *tiny_pretraining("first"), "--then",
                       *tiny_transfer("--output=second"), PATH=path_without_slurm)
    assert "first failed, so second was not started" in done.error
    assert "error: 1 GPUs were asked for" in done.out
