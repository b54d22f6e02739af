"""What SLURM says of jobs, and what is made of it; no SLURM is needed."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("submitit", reason="submitit is not installed: pip install 'submitit>=1.5.4,<1.6'")

from harness.errors import UserError
from slurm import controller
from slurm.clusters import sbatch
from slurm.clusters.base import Launched
from slurm.config import LaunchConfig
from slurm.logs import Tail


def answers(monkeypatch, **texts: str) -> None:
    """Programs of SLURM that say this."""
    monkeypatch.setattr(controller, "ask", lambda *command, stdin=None: subprocess.CompletedProcess(
        command, 0, texts["_".join(command[:1])], ""))


def test_a_name_of_any_words(monkeypatch):
    answers(monkeypatch, scontrol="JobId=7 JobName=a JobState=FAILED run UserId=me(1) JobState=RUNNING Reason=None\n"
                                  "JobId=9 ArrayJobId=8 ArrayTaskId=2-4%2 JobName=x UserId=me(1) JobState=PENDING\n")
    states = controller.job_states("7")
    assert list(states) == ["7", "8_2-4%2"] and states["7"]["JobState"] == "RUNNING"
    assert states["7"]["JobName"] == "a JobState=FAILED run"
    assert controller.is_live("7", "a JobState=FAILED run") and not controller.is_live("7", "a")


@pytest.mark.parametrize(("state", "live"), [
    ("PENDING", True), ("COMPLETING", True), ("REQUEUED", True), ("SUSPENDED", True), ("COMPLETED", False),
    ("PREEMPTED", False), ("CANCELLED", False), ("NODE_FAIL", False),
])
def test_states(state, live):
    assert controller.goes_on({"JobState": state}) is live


def test_partitions(monkeypatch):
    shown = {"sinfo -h -a": "open infinite\nday* 1-00:00:00\nhidden 1:00:00\n"}

    def ask(*command: str, stdin: str | None = None) -> subprocess.CompletedProcess:
        text = shown.get(" ".join(command[:3]), "").replace(" ", "|")
        return subprocess.CompletedProcess(command, 0, text, "")

    monkeypatch.setattr(controller, "ask", ask)
    controller.check_limits("hidden", 60)
    controller.check_limits(None, 1440)
    controller.check_limits("day,open", 9999)
    for partition, asked in (("hidden", 61), (None, 1441), ("day,hidden", 1441)):
        with pytest.raises(UserError, match="at most"):
            controller.check_limits(partition, asked)
    shown["sinfo -h -a"] = "short 1:00:00\nday 1-00:00:00\n"
    controller.check_limits(None, 9999)  # no partition is the default one: SLURM itself says so


@pytest.mark.parametrize(("nodes", "said", "refused"), [
    ("up|idle up|mixed", "Requested node configuration is not available", True),
    ("up|idle up|drained*", "Requested node configuration is not available", False),
    ("down|idle", "Requested node configuration is not available", False),
    ("up|down", "Invalid feature specification", True),
])
def test_nodes_that_are_down(nodes, said, refused, monkeypatch, capsys):
    """A job that needs them waits, as those of sbatch do."""
    monkeypatch.setattr(controller, "ask", lambda *command, stdin=None: subprocess.CompletedProcess(
        command, int(command[0] == "sbatch"), nodes.replace(" ", "\n"), f"allocation failure: {said}\n"))
    if refused:
        with pytest.raises(UserError, match=said):
            controller.test_script("", "low")
    else:
        controller.test_script("", "low")
        assert "down or drained" in capsys.readouterr().out


def test_an_element_that_slurm_has_forgotten(monkeypatch, capsys):
    """A failure stays one when SLURM drops it, while others of the array run; what is started again is none."""
    answer = {"1": {"JobState": "FAILED"}, "2": {"JobState": "FAILED"}, "3-9": {"JobState": "PENDING"}}
    said = [answer, {}, {"2": {"JobState": "PENDING"}, "3": {"JobState": "RUNNING"}},
            {"2": {"JobState": "COMPLETED"}, "3": {"JobState": "COMPLETED"}}]

    def follow(answers: list) -> int:
        rest = iter(answers)
        monkeypatch.setattr(controller, "job_states", lambda number: next(rest))
        monkeypatch.setattr(sbatch, "POLL", 0)
        return sbatch.Slurm(LaunchConfig()).follow(
            Launched("7", "run", Path("."), [Path("1.out"), Path("2.out")], "watch", "cancel", Path(".")))

    assert follow(said) == 1
    assert "2 completed, 1 failed" in capsys.readouterr().out
    del answer["1"]
    assert follow(said) == 0


def test_letters_that_are_written_in_parts(tmp_path):
    log, output = tmp_path / "log", io.StringIO()
    tail = Tail(log, output)
    tail.show()
    for part in (b"50% \xe2", b"\x96", b"\x88 done\n"):
        with open(log, "ab") as file:
            file.write(part)
        tail.show()
    assert output.getvalue() == "50% █ done\n"
