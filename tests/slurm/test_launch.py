"""What is asked for, refused and submitted; no SLURM is needed."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("submitit", reason="submitit is not installed: pip install 'submitit>=1.5.4,<1.6'")

from harness.errors import UserError
from slurm import controller
from slurm.claims import claimed, refuse_held
from slurm.clusters.base import CLUSTERS, Cluster, Launched
from slurm.config import LaunchConfig, read_launch
from slurm.durations import minutes
from slurm.environment import join_world
from slurm.launch import plan, submit
from slurm.programs.base import find_program, later_words
from slurm.steps import Step, Task

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("text", "expected"), [
    ("90", 90), ("90m", 90), ("24h", 1440), ("1d12h", 2160), ("30s", 1), ("90:30", 91), ("24:00:00", 1440),
    ("1-12", 2160), ("1-12:30", 2190), ("2-00:00:00", 2880), ("0:0:1", 1),
])
def test_time_limits(text, expected):
    assert minutes(text) == expected


@pytest.mark.parametrize("text", ["", "0", "h", "1.5h", "-3", "1-", "1:2:3:4", "soon", 86400])
def test_what_is_no_time_limit(text):
    with pytest.raises(UserError, match="time"):
        minutes(text)


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "configs" / "slurm").glob("*.yaml")))
def test_example_configurations(name):
    config, commands = read_launch(["--config", str(ROOT / "configs" / "slurm" / name), "--", "pretrain/main.py"])
    assert config.partition and commands == [["pretrain/main.py"]]
    assert config.processes == config.nodes * (config.gpus_per_node or config.tasks_per_node)


def test_words_of_the_command_line(tmp_path):
    (tmp_path / "a.yaml").write_text("setup: [first]\nsbatch: {reservation: r}\n")
    config, commands = read_launch([
        "--config", str(tmp_path / "a.yaml"), "--setup", "module load x: y", "--setup=export A='b c'", "--dry-run",
        "--cpus-per-task", "3", "--sbatch.mail-type", "END", "--", "pretrain/main.py", "--name", "p", "--then",
        "transfer/main.py", "--", "x"])
    assert config.setup == ["first", "module load x: y", "export A='b c'"] and config.dry_run and not config.wait
    assert config.sbatch == {"reservation": "r", "mail-type": "END"} and config.cpus_per_task == 3
    assert commands == [["pretrain/main.py", "--name", "p"], ["transfer/main.py", "--", "x"]]


@pytest.mark.parametrize(("words", "message"), [
    ([], "there is nothing to launch: python -m slurm.launch"),
    (["--", "pretrain/main.py", "--then"], "nothing to launch after --then"),
    (["pretrain/main.py", "--epochs=1"], "'pretrain/main.py' stands where options of the launch are: what is to run "
                                         "stands after --, as in python -m slurm.launch"),
    (["--mem=32Q", "--", "a"], "mem is '32Q': give the memory of each node, as 32G or 500M"),
    (["--partion=x", "--", "a"], "unknown option --partion (did you mean '--partition'?)"),
    (["--nodes=0", "--", "a"], "nodes is 0: give 1 or more"),
    (["--nodes=two", "--", "a"], "option --nodes"),
    (["--time=soon", "--", "a"], "time 'soon' is not a time limit"),
    (["--time=1m", "--signal-delay=60", "--", "a"], "signal_delay is 60 seconds"),
    (["--gpus-per-node=2", "--tasks-per-node=4", "--", "a"], "a GPU takes one process"),
    (["--sbatch.output=x", "--", "a"], "sbatch.output is the launch's own"),
    (["--sbatch.gpus-per-node=x", "--", "a"], "give --gpus_per_node instead"),
    (["--after=job", "--", "a"], "after is 'job': give the id of a job"),
])
def test_mistakes(words, message):
    with pytest.raises(UserError) as error:
        read_launch(words)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_run_that_must_be_new_goes_on_when_it_is_started_again():
    assert later_words("never") == ["--resume=auto"] and later_words("auto") == later_words("x.pt") == []


def test_programs():
    for word in ("pretrain/main.py", "pretrain.main", str(ROOT / "pretrain" / "main.py")):
        assert find_program(word) is find_program("pretrain/main.py")
    assert find_program("transfer.sweep") is find_program("transfer/sweep.py")
    for word in ("train.py", "pretrain/evaluate.py"):
        with pytest.raises(UserError, match="cannot be launched: give one of pretrain/main.py, transfer/main.py"):
            find_program(word)


def step(folder: Path, count: int = 1) -> Step:
    return Step("run", folder / "run", [Task(f"run{i}", "pretrain.main", [], folder / "run") for i in range(count)])


def script(folder: Path, *words: str, count: int = 1, after: str | None = None) -> str:
    config, _ = read_launch([*words, "--", "pretrain/main.py"])
    return CLUSTERS.get("slurm")(config).script(step(folder, count), after)


def test_the_script(tmp_path):
    text = script(tmp_path, "--partition=p", "--account=a", "--qos=q", "--constraint=c", "--exclude=n7", "--time=1d",
                  "--nodes=2", "--gpus-per-node=4", "--cpus-per-task=6", "--mem=9G", "--setup", "module load cuda",
                  "--setup", "source 'my env'", "--sbatch.reservation=r", "--sbatch.exclusive=true",
                  "--signal-delay=77", "--restarts=3", after="12")
    for key in ("partition=p", "account=a", "qos=q", "constraint=c", "exclude=n7", "time=1440", "nodes=2",
                "gpus-per-node=4", "ntasks-per-node=4", "cpus-per-task=6", "mem=9G", "reservation=r", "exclusive",
                "signal=USR2@77", "requeue", "dependency=afterok:12", "kill-on-invalid-dep=yes", "open-mode=append"):
        assert f"\n#SBATCH --{key}\n" in text, key
    srun = next(line for line in text.splitlines() if line.startswith("srun "))
    assert "--kill-on-bad-exit=1" in srun and "--cpus-per-task=6" in srun
    assert text.index("module load cuda\nsource 'my env'\nset +euo pipefail") < text.index("srun ")
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0
    assert "--array=0-4%2" in script(tmp_path, "--parallel=2", count=5)
    assert not list(tmp_path.iterdir()), "a script that is only shown leaves files"


@pytest.mark.parametrize(("code", "state", "again"), [
    (0, "RUNNING", False), (1, "RUNNING", True), (137, "RUNNING", True), (2, "RUNNING", False),
    (255, "RUNNING", False), (140, "RUNNING", True), (137, "COMPLETING", False), (143, "CANCELLED", False),
])
def test_what_the_script_does_after_the_program(tmp_path, code, state, again):
    """It is started again after a crash, as often as asked for, and only while SLURM lets it run."""
    text = script(tmp_path, "--restarts=2", "--max-timeouts=3")
    (tmp_path / "slurm" / "run").mkdir(parents=True)
    for name, body in (("srun", f"exit {code}"), ("sleep", ""),
                       ("scontrol", f'[ "$1" = show ] && echo JobState={state} || echo "$@" >> {tmp_path}/calls')):
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(stat.S_IRWXU)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    codes = [subprocess.run(["bash"], input=text, text=True, env=environment, stdout=subprocess.DEVNULL).returncode
             for _ in range(5)]
    calls = (tmp_path / "calls").read_text().splitlines() if (tmp_path / "calls").exists() else []
    assert codes == [code] * 5 and calls == ["requeue 7"] * (0 if not again else 3 if code == 140 else 2)


def test_no_slurm_here(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    config, _ = read_launch(["--", "pretrain/main.py"])
    with pytest.raises(UserError, match="there is no SLURM here .* --cluster local"):
        CLUSTERS.get("slurm")(config).check([])


def test_an_unknown_cluster():
    with pytest.raises(UserError, match="unknown cluster 'slum' .did you mean 'slurm'"):
        CLUSTERS.get("slum")


@pytest.mark.parametrize(("name", "words", "message"), [
    ("local", ["--nodes=2"], "is one machine"), ("debug", ["--tasks-per-node=2"], "is one: leave nodes"),
    ("local", ["--after=3"], "use --then"), ("debug", ["--after=3"], "use --then"),
])
def test_what_other_clusters_cannot_do(name, words, message):
    config, _ = read_launch([*words, "--", "pretrain/main.py"])
    with pytest.raises(UserError, match=message):
        CLUSTERS.get(name)(config).check([])


def test_a_wrong_configuration_is_found_before_anything_is_submitted(programs):
    wrong = programs.call("slurm.launch", "--cluster=local", "--", "pretrain/main.py", "--epoch=3")
    assert "unknown option --epoch (did you mean '--epochs'?)" in wrong.error
    wrong = programs.call("slurm.launch", "--cluster=local", "--", *["transfer/main.py", *programs.options("transfer")],
                          "--model.backbone=resnet19")
    assert "resnet19" in wrong.error
    wrong = programs.call("slurm.launch", "--cluster=local", "--", *["transfer/main.py", *programs.options("transfer")],
                          "--model.weights=nothing.pt")
    assert "nothing.pt" in wrong.error
    assert not list(programs.folder.iterdir())


def test_nothing_stands_behind_a_sweep(tmp_path, monkeypatch):
    comparison = Step("sweep-compare", tmp_path, [Task("gather", "slurm.gather", [], tmp_path)], alone=True)
    monkeypatch.setattr("slurm.programs.base.find_program", lambda word: lambda words, situation: [comparison])
    config, commands = read_launch(["--", "transfer.sweep"])
    assert plan(config, commands) == [comparison]
    with pytest.raises(UserError, match="nothing can stand behind a sweep"):
        plan(config, [*commands, ["transfer/main.py"]])


def test_folders_are_claimed(tmp_path):
    holder = {"cluster": "slurm", "job": "5", "name": "run", "cancel": "scancel 5"}
    run, other = tmp_path / "run", tmp_path / "other"
    with claimed([run, run, other], lambda job: False) as keep:
        keep(run, holder)
        keep(run, {**holder, "job": "6"})
        with pytest.raises(UserError, match="is just being launched"), claimed([other], lambda job: False):
            pass
    with pytest.raises(UserError, match="held by job 6"), claimed([other, run], lambda job: job["job"] == "6"):
        pass
    refuse_held(run, lambda job: False)
    refuse_held(other, lambda job: True)
    with pytest.raises(UserError, match=r"held by job 6 \(run\): wait for it, cancel it \(scancel 5\)"):
        refuse_held(run, lambda job: job["job"] == "6")


class Submitting(Cluster):
    """Remembers what stands behind what."""

    behind: dict[str, str | None] = {}
    check = script = follow = live = None

    def submit(self, step, before):
        self.behind[step.name] = before and before.name
        log = step.folder / "log"
        return Launched(str(len(self.behind)), step.name, step.folder, [log], "", "stop it", step.folder)


def test_steps_are_submitted_one_behind_the_other(tmp_path, monkeypatch):
    """And their folders are those of their jobs, as long as these live."""
    cluster = Submitting(LaunchConfig(cluster="remembering"))
    monkeypatch.setattr(cluster, "check", lambda steps: None)
    monkeypatch.setattr(Submitting, "live", lambda self, number, name: (number, name) == ("2", "b"))
    monkeypatch.setitem(CLUSTERS._things, "remembering", Submitting)
    steps = [Step(name, tmp_path / name, [Task(name, "pretrain.main", [], tmp_path / name)]) for name in "ab"]
    assert [launched.id for launched in submit(cluster, steps)] == ["1", "2"]
    assert cluster.behind == {"a": None, "b": "a"}
    assert len(list(submit(cluster, steps[:1]))) == 1
    with pytest.raises(UserError, match=r"held by job 2 \(b\): wait for it, cancel it \(stop it\)"):
        list(submit(cluster, steps[1:]))


def job(**given):
    values = {"num_tasks": 4, "num_nodes": 2, "global_rank": 3, "local_rank": 1, "node": 1, "raw_job_id": "41234",
              "hostnames": ["localhost", "elsewhere"], **given}
    return SimpleNamespace(**values)


def test_the_world_of_processes(monkeypatch):
    before = dict(os.environ)
    try:
        join_world(job(), 4, cores=3)
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT",
                 "TASKLIFT_WORLD_SIZE", "TASKLIFT_CORES")
        assert [os.environ[name] for name in names] == ["3", "4", "1", "2", "1", "localhost", "21234", "4", "3"]
        os.environ["SLURM_CPUS_ON_NODE"] = "7"  # of the job; the node may have more
        join_world(job(), 4)
        assert os.environ["TASKLIFT_CORES"] == "3"
        join_world(job(num_nodes=1), 4)
        assert os.environ["MASTER_ADDR"] == "127.0.0.1" and os.environ["LOCAL_WORLD_SIZE"] == "4"
        join_world(job(num_tasks=1, num_nodes=1, global_rank=0, local_rank=0), 1)
        assert "RANK" not in os.environ and os.environ["TASKLIFT_WORLD_SIZE"] == "1"
        for seen in (1, 2, 8):
            with pytest.raises(UserError, match=f"4 processes were asked for, and the cluster started {seen}"):
                join_world(job(num_tasks=seen), 4)
    finally:
        os.environ.clear()
        os.environ.update(before)


def test_a_job_inside_a_job_takes_nothing_over(monkeypatch):
    for name in ("SLURM_JOB_ID", "SLURM_CPUS_PER_TASK", "SRUN_DEBUG", "SUBMITIT_EXECUTOR", "RANK", "MASTER_ADDR"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("SLURM_CONF", "here")
    with controller.clean_environment():
        left = [name for name in os.environ if name.startswith(("SLURM_", "SRUN_", "SUBMITIT_"))]
        assert left == ["SLURM_CONF"] and "RANK" not in os.environ and "MASTER_ADDR" not in os.environ
    assert os.environ["SLURM_JOB_ID"] == "1" and os.environ["RANK"] == "1"


@pytest.mark.parametrize(("text", "expected"), [
    ("sbatch: error: invalid partition specified: x\nallocation failure: Invalid partition name specified\n",
     "invalid partition specified: x; allocation failure: Invalid partition name specified: choose one that sinfo"),
    ("sbatch: unrecognized option '--foo'\nTry \"sbatch --help\" for more information\n",
     "unrecognized option '--foo': take it out of sbatch"),
    ("", "no reason given"),
])
def test_what_sbatch_says(text, expected):
    assert controller.refusal(text).startswith(expected)
