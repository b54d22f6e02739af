"""What stands in the scripts of jobs, and what they do after the program; no SLURM is needed."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("submitit", reason="submitit is not installed: pip install 'submitit>=1.5.4,<1.6'")

from harness.errors import UserError
from slurm.clusters.base import CLUSTERS, Launched
from slurm.config import read_launch
from slurm.steps import Step, Task


def script(folder: Path, *words: str) -> str:
    config, _ = read_launch([*words, "--", "pretrain/main.py"])
    step = Step("run", folder / "run", [Task("run", "pretrain.main", [], folder / "run")])
    return CLUSTERS.get("slurm")(config).script(step, None)


def program(folder: Path, name: str, body: str) -> None:
    (folder / name).write_text(f"#!/bin/bash\n{body}\n")
    (folder / name).chmod(stat.S_IRWXU)


def test_a_comparison_waits_for_failed_runs_too(tmp_path):
    config, _ = read_launch(["--after=3", "--", "transfer.sweep"])
    task = Task("sweep", "slurm.gather", [], tmp_path / "sweep")
    for even, key in ((True, "afterany:12"), (False, "afterok:12")):
        step = Step("compare", tmp_path / "sweep", [task], even_if_failed=even)
        assert f"#SBATCH --dependency={key}" in CLUSTERS.get("slurm")(config).script(step, "12").splitlines()


def test_crashes_of_every_kind_are_counted_together(tmp_path):
    """An element of an array is started again alone, and setup lines may stop at errors."""
    text = script(tmp_path, "--restarts=2", "--setup", "set -euo pipefail")
    (tmp_path / "slurm" / "run").mkdir(parents=True)
    program(tmp_path, "srun", f"exit $(cat {tmp_path}/code)")
    program(tmp_path, "scontrol", f'[ "$1" = show ] && echo JobState=RUNNING || echo "$@" >> {tmp_path}/calls')
    program(tmp_path, "sleep", "")
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7",
                   "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}
    for code in (1, 137, 139):
        (tmp_path / "code").write_text(str(code))
        done = subprocess.run(["bash"], input=text, text=True, env=environment, stdout=subprocess.DEVNULL)
        assert done.returncode == code
    assert (tmp_path / "calls").read_text().splitlines() == ["requeue 7_3"] * 2


def test_one_process_with_a_mistake(tmp_path):
    """SLURM kills the others, and says their code; it is a mistake all the same, and told once."""
    text = script(tmp_path)
    mistake = tmp_path / "slurm" / "run" / "mistake-7"
    mistake.parent.mkdir(parents=True)
    mistake.touch()
    program(tmp_path, "srun", "exit 137")
    program(tmp_path, "scontrol", f'[ "$1" = show ] && echo JobState=RUNNING || echo "$@" >> {tmp_path}/calls')
    program(tmp_path, "sleep", "")
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    codes = [subprocess.run(["bash"], input=text, text=True, env=environment, stdout=subprocess.DEVNULL).returncode
             for _ in range(2)]
    assert codes == [2, 137] and not mistake.exists()
    assert (tmp_path / "calls").read_text() == "requeue 7\n"


def test_what_the_user_has_set_for_all_jobs(tmp_path, monkeypatch):
    for name, value in (("PARTITION", "mine"), ("ACCOUNT", "a"), ("RESERVATION", "r"), ("TIMELIMIT", "5")):
        monkeypatch.setenv(f"SBATCH_{name}", value)
    monkeypatch.setenv("SUBMITIT_PREEMPT_SIGNAL", "USR1")
    lines = script(tmp_path, "--partition=other").splitlines()
    for key in ("partition=other", "account=a", "reservation=r", "time=1440", "signal=USR2@120"):
        assert f"#SBATCH --{key}" in lines, key
    assert "#SBATCH --reservation=s" in script(tmp_path, "--sbatch.reservation=s").splitlines()


@pytest.mark.parametrize(("words", "key", "gpus", "processes"), [
    (["--gpus-per-node=4"], "gpus-per-node=4", 4, 4), (["--gpus-per-node=a100:2"], "gpus-per-node=a100:2", 2, 2),
    (["--sbatch.gres=gpu:a100:3", "--tasks-per-node=3"], "gres=gpu:a100:3", 1, 3),
    (["--sbatch.gpus-per-task=1", "--tasks-per-node=2"], "gpus-per-task=1", 1, 2),
    (["--sbatch.gres=shard:3"], "gres=shard:3", 0, 1),
])
def test_gpus(tmp_path, words, key, gpus, processes):
    """However they are asked for, a run without them is an error; a comparison needs none."""
    config, _ = read_launch([*words, "--sbatch.exclusive=true", "--", "pretrain/main.py"])
    step = Step("run", tmp_path / "run", [Task("run", "pretrain.main", [], tmp_path / "run")])
    lines = CLUSTERS.get("slurm")(config).script(step, None).splitlines()
    assert f"#SBATCH --{key}" in lines and "#SBATCH --exclusive" in lines
    job = step.tasks[0].job(config)
    assert (job.gpus, job.processes) == (gpus, processes)
    step.alone = True
    lines = CLUSTERS.get("slurm")(config).script(step, None).splitlines()
    assert not any(line.startswith(("#SBATCH --gpus", "#SBATCH --gres=gpu", "#SBATCH --excl")) for line in lines)
    assert step.tasks[0].job(step.resources(config)).gpus == 0


def test_what_compares_asks_for_little(tmp_path):
    config, _ = read_launch(["--time=2d", "--cpus-per-task=16", "--nodes=4", "--", "transfer.sweep"])
    step = Step("compare", tmp_path / "run", [Task("compare", "slurm.gather", [], tmp_path)], alone=True)
    lines = CLUSTERS.get("slurm")(config).script(step, None).splitlines()
    assert {f"#SBATCH --{key}" for key in ("time=60", "cpus-per-task=2", "nodes=1")} <= set(lines)


@pytest.mark.parametrize(("words", "message"), [
    (["--gpus-per-node=many"], "gpus_per_node is 'many': give a number, or a type with one, as a100:4"),
    (["--gpus-per-node=-1"], "gpus_per_node is -1"),
    (["--gpus-per-node=a100:2", "--tasks-per-node=4"], "a GPU takes one process"),
    (["--config", "times.yaml"], "sbatch.begin is the number 990: YAML reads 16:30 so, write it in quotes"),
])
def test_mistakes(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("times.yaml").write_text("sbatch: {begin: 16:30}\n")
    with pytest.raises(UserError) as error:
        read_launch([*words, "--", "pretrain/main.py"])
    assert message in str(error.value)


def test_keys_of_sbatch_are_text(tmp_path):
    (tmp_path / "a.yaml").write_text("sbatch: {nice: 5, hold: true, begin: '16:30'}\n")
    lines = script(tmp_path, f"--config={tmp_path}/a.yaml", "--sbatch.begin=17:45", "--sbatch.exclusive", "--nodes=2",
                   "--sbatch.wckey", "010", "--sbatch.hold=false").splitlines()
    for key in ("begin=17:45", "wckey=010", "exclusive", "nice=5", "nodes=2"):
        assert f"#SBATCH --{key}" in lines, key
    assert not any("hold" in line for line in lines)


def test_paths_can_be_copied_to_a_shell(tmp_path):
    folder = tmp_path / "a b"
    logs = [folder / "7_0_0_log.out", folder / "7_1_0_log.out"]
    folder.mkdir()
    for log in logs:
        log.write_text("x\n")
    for shown in (logs, logs[:1]):
        text = Launched("7", "run", folder, shown, "watch", "cancel", folder).text()
        command = next(line for line in text.splitlines() if "tail -F" in line).split("tail -F")[1]
        found = subprocess.run(["bash", "-c", f"ls {command}"], capture_output=True, text=True).stdout.splitlines()
        assert found == [str(log) for log in shown]
