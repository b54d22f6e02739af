"""The shortest run on a real SLURM: one process, told to stop once, that goes on bit for bit."""

from __future__ import annotations

import pytest

pytest.importorskip("submitit", reason="submitit is not installed: pip install 'submitit>=1.5.4,<1.6'")


@pytest.mark.timeout(300)
def test_one_process_goes_on_after_the_signal(launch, programs, tiny_pretraining, logged_step, same_runs):
    job = launch.submit("--", *tiny_pretraining("broken", "--plugin=pace.py"))
    launch.wait_for_step("broken", 4, logged_step, job)
    launch.cluster.run("scancel", "--signal=USR2", job)
    assert programs.main("pretrain", *tiny_pretraining("whole")[1:], tiny=False).code == 0
    ended = launch.wait(job, "COMPLETED", "FAILED", "CANCELLED", run="broken")
    assert ended["JobState"] == "COMPLETED" and ended["Restarts"] == "1", launch.log("broken")
    assert "stopped by signal 12" in launch.log("broken") and "continues" in launch.log("broken")
    same_runs(launch.folder / "whole", launch.folder / "broken")
