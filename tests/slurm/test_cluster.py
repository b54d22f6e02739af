"""Runs on a real SLURM that are disturbed in every way, and end with the same bits as runs that are not."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

pytest.importorskip("submitit", reason="submitit is not installed: pip install 'submitit>=1.5.4,<1.6'")
pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]
TWO = ("--tasks-per-node=2",)
APART = ("--nodes=2", "--tasks-per-node=1")
FAST = {"TASKLIFT_TEST_PACE": "0"}
CRASH = """
from pretrain.engine import Pretraining
def train_step(self, batch):
    raise RuntimeError("no luck")
Pretraining.train_step = train_step
"""
HANG = """
import os, time
from pretrain.engine import Pretraining
step = Pretraining.train_step
def hang(self, batch):
    if self.step == 5 and self.world.process_index == 1 and not os.environ.get("SLURM_RESTART_COUNT"):
        time.sleep(600)
    step(self, batch)
Pretraining.train_step = hang
"""
SOME_FAIL = """
from harness.errors import UserError
from transfer.engine import Transfer
step, fails = Transfer.train_step, {0.01: UserError("a mistake"), 0.02: RuntimeError("no luck")}
def train_step(self, batch):
    if self.config.optimizer.lr in fails:
        raise fails[self.config.optimizer.lr]
    step(self, batch)
Transfer.train_step = train_step
"""
SLOW_END = """
import os, pathlib, time
import pretrain.outcome
write = pretrain.outcome.write_outcome
def slow(*words):
    if not os.environ.get("SLURM_RESTART_COUNT"):
        pathlib.Path("ending").touch()
        time.sleep(600)
    write(*words)
pretrain.outcome.write_outcome = slow
"""


def processes_of(job: str, rank: int) -> list[int]:
    """Processes of a rank, the one that trains first, its data workers behind."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            environment = (path / "environ").read_bytes().split(b"\0")
            words = (path / "cmdline").read_bytes()
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        wanted = {f"SLURM_JOB_ID={job}".encode(), f"SLURM_PROCID={rank}".encode()}
        if wanted <= set(environment) and b"submitit.core._submit" in words:
            found[int(path.name)] = parent
    return sorted(found, key=lambda process: found[process] in found)


def completed(launch, job: str, run: str = "broken", restarts: int = 1) -> None:
    """Wait for the end, after so many starts."""
    ended = launch.wait(job, "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", run=run)
    assert (ended["JobState"], ended["Restarts"]) == ("COMPLETED", str(restarts)), launch.log(run)


def test_one_process_that_is_followed(launch, tiny_pretraining, whole, same_runs):
    shown = launch("--dry-run", "--", *tiny_pretraining("run"))
    assert not (launch.folder / "slurm").exists(), "a script that is only shown leaves files"
    done = launch("--wait", "--", *tiny_pretraining("run"))
    assert done.code == 0, (done.out, done.err)
    (job,) = done.jobs
    script = launch.folder / "slurm" / "run" / f"{job}_submission.sh"
    assert shown.out.strip() == script.read_text().strip(), "another script was shown"
    assert f"scancel {job}" in done.out and f"squeue -j {job}" in done.out and "completed" in done.out
    assert str(launch.folder / "slurm" / "run") in done.out
    assert "report" in done.out or "loss" in done.out, "the log was not shown"
    same_runs(whole(), launch.folder / "run")
    again = launch("--", *tiny_pretraining("run"))
    assert again.code == 0 and "run is finished" in again.out and not again.jobs


def test_two_processes_preempted_by_a_job_of_higher_priority(launch, tiny_pretraining, whole, logged_step, same_runs):
    job = launch.submit(*TWO, "--", *tiny_pretraining("broken", "--plugin=pace.py"))
    launch.wait_for_step("broken", 4, logged_step, job)
    launch.cluster.run("sbatch", "-p", "high", "-N2", "--ntasks-per-node=2", "--wrap", "sleep 2")
    completed(launch, job)
    assert "this job is preempted" in launch.log("broken") and "stopped by signal 12" in launch.log("broken")
    same_runs(whole(2), launch.folder / "broken")


def test_one_process_on_each_of_two_nodes_that_are_requeued_twice(
        launch, tiny_pretraining, whole, logged_step, same_runs):
    job = launch.submit(*APART, "--", *tiny_pretraining("broken", "--plugin=pace.py", "--resume=never"),
                        TASKLIFT_TEST_LIVES="2", TASKLIFT_TEST_HOLD="10")
    launch.wait_for_step("broken", 5, logged_step, job)
    assert launch.cluster.job(job)["NodeList"] == "n[1-2]"
    launch.cluster.run("scontrol", "requeue", job)
    launch.wait_for_words("broken", "continues")
    launch.wait_for_step("broken", 10, logged_step, job)
    launch.cluster.run("scancel", "--signal=USR2", job)
    completed(launch, job, restarts=2)
    same_runs(whole(2), launch.folder / "broken")


def test_a_lost_node(launch, tiny_pretraining, whole, logged_step, same_runs):
    job = launch.submit("--", *tiny_pretraining("broken", "--plugin=pace.py"))
    launch.wait_for_step("broken", 5, logged_step, job)
    node = launch.cluster.job(job)["NodeList"]
    launch.cluster.lose(node, job)
    try:
        completed(launch, job)
        assert launch.cluster.job(job)["NodeList"] != node
    finally:
        launch.cluster.find(node)
    same_runs(whole(), launch.folder / "broken")


def test_time_limit_reached(launch, tiny_pretraining, whole, logged_step, same_runs):
    """It is lowered while the run waits for the signal, and raised again: minutes for all else, on any machine."""
    job = launch.submit("--time=10m", "--signal-delay=300", "--", *tiny_pretraining("broken", "--plugin=pace.py"),
                        TASKLIFT_TEST_HOLD="4")
    launch.wait_for_step("broken", 4, logged_step, job)
    launch.cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=5")
    until = time.monotonic() + 120
    while launch.cluster.job(job).get("Restarts") != "1":
        assert time.monotonic() < until, launch.log("broken")
        time.sleep(0.1)
    launch.cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=10")
    completed(launch, job)
    assert "this job is timed-out" in launch.log("broken") and "(99 remaining timeouts)" in launch.log("broken")
    same_runs(whole(), launch.folder / "broken")


def test_time_limit_reached_too_often(launch, tiny_pretraining, logged_step):
    """With under ten minutes, every signal counts as the time limit."""
    job = launch.submit("--time=9m", "--max-timeouts=0", "--", *tiny_pretraining("broken", "--plugin=pace.py"))
    launch.wait_for_step("broken", 2, logged_step, job)
    launch.cluster.run("scancel", "--signal=USR2", job)
    ended = launch.wait(job, "COMPLETED", "FAILED", "TIMEOUT", run="broken")
    assert (ended["JobState"], ended["ExitCode"], ended["Restarts"]) == ("FAILED", "2:0", "0"), launch.log("broken")
    assert "error: Job not requeued because: timed-out too many times" in launch.log("broken")
    assert (launch.folder / "broken" / "checkpoints" / "last.pt").exists()


def test_a_killed_process_starts_again(launch, tiny_pretraining, whole, logged_step, same_runs):
    job = launch.submit(*TWO, "--", *tiny_pretraining("broken", "--plugin=pace.py"))
    launch.wait_for_step("broken", 5, logged_step, job)
    os.kill(processes_of(job, 1)[0], signal.SIGKILL)
    completed(launch, job)
    assert "starts again from the last checkpoint (1 of 1)" in launch.log("broken")
    same_runs(whole(2), launch.folder / "broken")


def test_a_killed_process_without_restarts_fails_and_the_same_command_goes_on(
        launch, tiny_pretraining, whole, logged_step, same_runs):
    words = ["--restarts=0", "--", *tiny_pretraining("broken", "--plugin=pace.py")]
    job = launch.submit(*words)
    launch.wait_for_step("broken", 5, logged_step, job)
    os.kill(processes_of(job, 0)[0], signal.SIGKILL)
    ended = launch.wait(job, "FAILED", "COMPLETED")
    assert (ended["JobState"], ended["Restarts"]) == ("FAILED", "0")
    completed(launch, launch.submit(*words, **FAST), restarts=0)
    same_runs(whole(), launch.folder / "broken")


def test_a_program_that_always_crashes_is_not_started_for_ever(launch, tiny_pretraining):
    (launch.folder / "crash.py").write_text(CRASH)
    job = launch.submit("--", *tiny_pretraining("broken", "--plugin=crash.py"))
    ended = launch.wait(job, "FAILED", "COMPLETED", run="broken")
    assert (ended["JobState"], ended["Restarts"], ended["ExitCode"]) == ("FAILED", "1", "1:0"), launch.log("broken")
    assert launch.log("broken").count("RuntimeError: no luck") >= 2


def test_a_mistake_is_not_started_again(launch, tiny_pretraining):
    """GPUs that SLURM gives and torch does not see: an error, and no run on CPUs instead."""
    job = launch.submit("--gpus-per-node=2", "--", *tiny_pretraining("broken"))
    ended = launch.wait(job, "FAILED", "COMPLETED", run="broken")
    assert (ended["JobState"], ended["Restarts"], ended["ExitCode"]) == ("FAILED", "0", "2:0"), launch.log("broken")
    assert "error: 2 GPUs were asked for" in launch.log("broken") and not (launch.folder / "broken").exists()


def test_cancelled_stays_cancelled_and_the_same_command_goes_on(
        launch, tiny_pretraining, whole, logged_step, same_runs):
    words = ["--", *tiny_pretraining("broken", "--plugin=pace.py", "--loop.save_steps=100")]
    job = launch.submit(*words)
    launch.wait_for_step("broken", 3, logged_step, job)
    launch.cluster.run("scancel", job)
    ended = launch.wait(job, "CANCELLED", "COMPLETED", "FAILED")
    assert (ended["JobState"], ended["Restarts"]) == ("CANCELLED", "0")
    time.sleep(10)
    assert launch.cluster.state(job) == "CANCELLED" and not processes_of(job, 0)
    assert (launch.folder / "broken" / "checkpoints" / "last.pt").exists(), "SIGTERM did not save"
    completed(launch, launch.submit(*words, **FAST), restarts=0)
    same_runs(whole(), launch.folder / "broken")


def test_a_step_that_is_too_far_away(launch, tiny_pretraining, whole, same_runs):
    """The signal comes while the run writes its results: it starts again and writes them then."""
    (launch.folder / "slow_end.py").write_text(SLOW_END)
    job = launch.submit("--signal-delay=3", "--", *tiny_pretraining("broken", "--plugin=slow_end.py"))
    until = time.monotonic() + 120
    while not (launch.folder / "ending").exists():
        assert time.monotonic() < until, launch.log("broken")
        time.sleep(0.1)
    launch.cluster.run("scancel", "--signal=USR2", job)
    completed(launch, job)
    assert "too far away" in launch.log("broken")
    same_runs(whole(), launch.folder / "broken")


def test_a_process_that_hangs(launch, tiny_pretraining, whole, logged_step, same_runs):
    """The first process waits for it, in a call that runs no Python, when the signal comes."""
    (launch.folder / "hang.py").write_text(HANG)
    job = launch.submit(*TWO, "--signal-delay=3", "--", *tiny_pretraining("broken", "--plugin=hang.py"))
    launch.wait_for_step("broken", 5, logged_step, job)
    launch.cluster.run("scancel", "--signal=USR2", job)
    completed(launch, job)
    assert "too far away" in launch.log("broken")
    same_runs(whole(2), launch.folder / "broken")


def test_pretraining_then_transfer(launch, tiny_pretraining, tiny_transfer, whole, logged_step, same_runs):
    done = launch("--", *tiny_pretraining("first", "--plugin=pace.py"), "--then", *tiny_transfer("--output=second"))
    assert done.code == 0 and "second: starts from first" in done.out, (done.out, done.err)
    first, second = done.jobs
    assert "afterok" in launch.cluster.job(second)["Dependency"]
    launch.wait_for_step("first", 4, logged_step, first)
    launch.cluster.run("scancel", "--signal=USR2", first)
    completed(launch, first, "first")
    completed(launch, second, "second", restarts=0)
    same_runs(whole(), launch.folder / "first")
    assert json.loads((launch.folder / "second" / "results.json").read_text())["weights"] is not None


def test_what_depends_on_a_failed_job_is_cancelled(launch, tiny_pretraining, tiny_transfer):
    done = launch("--gpus-per-node=1", "--wait", "--", *tiny_pretraining("first"), "--then",
                  *tiny_transfer("--output=second"))
    assert done.code == 1, (done.out, done.err)
    first, second = done.jobs
    assert (launch.cluster.state(first), launch.cluster.state(second)) == ("FAILED", "CANCELLED")
    assert not (launch.folder / "second").exists()


def test_a_sweep_with_elements_that_fail(launch, tiny_transfer):
    """One by a mistake; and the last one, which has the id of the array, by a crash: it alone starts again."""
    (launch.folder / "fail.py").write_text(SOME_FAIL)
    words = [word for word in tiny_transfer()[1:] if not word.startswith("--baseline")]
    done = launch("--parallel=2", "--wait", "--", "transfer.sweep", "--name=sweep", "--baseline=none",
                  "--axes.optimizer.lr=[0.001, 0.005, 0.01, 0.02]", "--", *words, "--epochs=1", "--plugin=fail.py")
    assert done.code == 1, (done.out, done.err)
    array, gather = done.jobs
    lines = launch.cluster.output("scontrol", "show", "job", "-o", array).splitlines()
    elements = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]
    ends = [(one["JobState"], one["Restarts"]) for one in sorted(elements, key=lambda one: one["ArrayTaskId"])]
    assert ends == [("COMPLETED", "0"), ("COMPLETED", "0"), ("FAILED", "0"), ("FAILED", "1")], (ends, done.out)
    assert [one["ArrayTaskId"] for one in elements if one["JobId"] == array] == ["3"]
    assert launch.cluster.state(gather) == "COMPLETED", done.out
    folder = launch.folder / "outputs" / "sweep"
    assert len(list(folder.glob("runs/*/results.json"))) == 2
    assert "4 settings" in (folder / "table.md").read_text() and (folder / "runs.md").exists()
    script = next((launch.folder / "outputs" / "slurm" / "sweep").glob(f"{array}_submission.sh")).read_text()
    assert "--array=0-3%2" in script


@pytest.mark.parametrize(("options", "message"), [
    (["--partition=nope"], "there is no partition 'nope' on this cluster: choose one of low, "),
    (["--partition=hihg"], "(did you mean 'high'?)"),
    (["--mem=999G"], "Requested node configuration is not available: no node of the partition has"),
    (["--nodes=3"], "Requested node configuration is not available"),
    (["--gpus-per-node=3"], "Requested node configuration is not available"),
    (["--constraint=a100"], "Invalid feature specification: choose a --constraint"),
    (["--partition=brief", "--time=2h"], "partition 'brief' gives 60 at most"),
    (["--sbatch.nonsense=1"], "unrecognized option '--nonsense=1': take it out of sbatch"),
])
def test_what_slurm_refuses(launch, tiny_pretraining, options, message):
    done = launch(*options, "--", *tiny_pretraining("refused"))
    assert message in done.error
    assert sorted(path.name for path in launch.folder.iterdir()) == ["pace.py"], "something was written"


def test_a_wrong_configuration_is_found_before_anything_is_submitted(launch, tiny_pretraining):
    submitted = launch.cluster.output("squeue", "-h", "-t", "all")
    wrong = launch("--", *tiny_pretraining("refused"), "--then", "transfer/main.py", "--epoch=3")
    assert "unknown option --epoch (did you mean '--epochs'?)" in wrong.error
    assert launch.cluster.output("squeue", "-h", "-t", "all") == submitted
    assert sorted(path.name for path in launch.folder.iterdir()) == ["pace.py"], "something was written"


def test_a_folder_that_a_job_holds(launch, tiny_pretraining):
    job = launch.submit("--sbatch.hold=true", "--", *tiny_pretraining("held"))
    again = launch("--", *tiny_pretraining("held"))
    assert f"run folder held is held by job {job} (held): wait for it, cancel it (scancel {job})" in again.error
    launch.cluster.run("scancel", job)
    launch.wait(job, "CANCELLED")
    assert launch("--dry-run", "--", *tiny_pretraining("held")).code == 0
