"""Questions to SLURM's controller, through its own programs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from harness.errors import UserError, closest
from slurm.durations import minutes

#: States of a job that waits or runs. PREEMPTED is not one: a job that is requeued then is PENDING again.
LIVE = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD", "REQUEUE_FED", "RUNNING",
        "SUSPENDED", "COMPLETING", "STAGE_OUT", "SIGNALING", "STOPPED", "RESIZING")
_LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT",
             "TASKLIFT_WORLD_SIZE", "TASKLIFT_CORES")
_OF_JOBS = re.compile(r"(SLURM|SLURMD|SRUN|SBATCH|SUBMITIT|PMI)_(?!CONF$)")
PATIENCE = 60


def need_slurm() -> None:
    """Refuse a machine without SLURM.

    Raises:
        UserError: its programs are not there.
    """
    missing = [name for name in ("sbatch", "srun", "squeue", "scontrol", "sinfo") if shutil.which(name) is None]
    if missing:
        raise UserError(f"there is no SLURM here ({missing[0]} is not on the PATH): log in where sinfo works, or run "
                        "the same on this machine with --cluster local")


@contextmanager
def clean_environment() -> Iterator[None]:
    """Without what a job that this process may be part of says about itself: a new job would take it over."""
    hidden = {name: value for name, value in os.environ.items() if _OF_JOBS.match(name) or name in _LAUNCHER}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


def ask(*command: str, stdin: str | None = None) -> subprocess.CompletedProcess:
    """A program of SLURM, which is not waited for for ever.

    Raises:
        UserError: it does not answer.
    """
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, input=stdin)
    except subprocess.TimeoutExpired as error:
        raise UserError(f"{command[0]} has not answered for {PATIENCE} seconds: ask whether the cluster is up "
                        "(sinfo)") from error
    except OSError as error:
        raise UserError(f"cannot run {command[0]}: {error.strerror}") from error


def partitions() -> tuple[dict[str, int | None], str]:
    """Names of the partitions with their time limits in minutes, None for none; and the default one, or nothing.

    Raises:
        UserError: the controller does not answer.
    """
    done = ask("sinfo", "-h", "-a", "-o", "%P|%l")  # hidden ones too
    if done.returncode:
        raise UserError(f"SLURM does not answer: {reason(done.stderr)}. Ask whether the cluster is up (sinfo)")
    found: dict[str, int | None] = {}
    default = ""
    for line in done.stdout.split():
        name, _, limit = line.rpartition("|")
        default = name[:-1] if name.endswith("*") else default
        found[name.rstrip("*")] = minutes(limit) if limit[:1].isdigit() else None
    return found, default


def check_limits(partition: str | None, asked: int) -> None:
    """Refuse a partition that is not there, and a time that it never gives: such a job would wait for ever.

    Raises:
        UserError: with what there is.
    """
    known, default = partitions()
    partition = partition or default
    names = partition.split(",") if known and partition else []
    for name in names:
        if name not in known:
            raise UserError(f"there is no partition '{name}' on this cluster{closest(name, known)}: choose one of "
                            f"{', '.join(known)} (sinfo shows them)")
    limits = [known[name] for name in names]
    if limits and None not in limits and asked > max(limits):
        raise UserError(f"time is {asked} min, and partition '{partition}' gives {max(limits)} at most: "
                        f"give --time {max(limits)}m; a run that takes longer starts again by itself and goes on")


def test_script(script: str, partition: str | None) -> None:
    """Let SLURM look at a script without submitting it.

    While nodes are down or drained it says of what needs them that there is no such node, and yet takes the job, which
    waits; so that is left to the submission.

    Raises:
        UserError: why it refuses.
    """
    with clean_environment():
        done = ask("sbatch", "--test-only", stdin=script)
    if not done.returncode:
        return
    said = refusal(done.stderr)
    if "node configuration is not available" not in said or not _lacks_nodes(partition):
        raise UserError(f"SLURM refuses the job: {said}")
    print("note: some nodes of the partition are down or drained: the job may wait for them")


def _lacks_nodes(partition: str | None) -> bool:
    """Whether some are down or drained now."""
    done = ask("sinfo", "-h", "-a", "-o", "%a|%T", *(["-p", partition] if partition else []))
    states = [line.partition("|") for line in done.stdout.split()]
    return any(up != "up" or re.match("down|drain|fail|maint|unknown|reserved", state) for up, _, state in states)


_CURES = {
    "invalid partition": "choose one that sinfo shows",
    "node configuration is not available": "no node of the partition has so many cores, GPUs or so much memory: "
                                           "compare with sinfo -N -o '%N %c %m %G %f'",
    "invalid feature": "choose a --constraint that sinfo -o '%N %f' shows",
    "invalid account": "choose an --account that you may use (sacctmgr show associations user=$USER)",
    "invalid qos": "choose a --qos that you may use (sacctmgr show associations user=$USER)",
    "unrecognized option": "take it out of sbatch; man sbatch lists all keys",
    "invalid job array": "more runs than an array may have here: see MaxArraySize in scontrol show config",
    "violates accounting": "ask for less, or choose another --qos",
}


def refusal(text: str) -> str:
    """What sbatch says, in a line with what to do."""
    said = reason(text)
    cure = next((cure for known, cure in _CURES.items() if known in said.lower()), "")
    return f"{said}: {cure}" if cure else said


def reason(text: str) -> str:
    """The errors that a program of SLURM prints, in one line."""
    lines = [re.sub(r"^(s[a-z]+|slurm_load\w*): *((error|fatal): *)?", "", line.strip()) for line in text.splitlines()
             if line.strip() and not line.startswith("Try ")]
    return "; ".join(dict.fromkeys(lines))[:300].rstrip(". ") or "no reason given"


_AROUND_NAME = re.compile(r"(.*?)\bJobName=(.*?) (UserId=.*)")  # a name has any words


def job_states(number: str) -> dict[str, Mapping[str, str]]:
    """What is known of a job, or of each element of an array, by id: JobState, Restarts, ExitCode, Reason, ...

    Empty when SLURM does not know it (any more), or cannot be asked.
    """
    try:
        done = ask("scontrol", "show", "job", "-o", number)
    except UserError:
        return {}
    found = {}
    for line in done.stdout.splitlines() if not done.returncode else ():
        before, name, behind = _AROUND_NAME.fullmatch(line).groups() if _AROUND_NAME.fullmatch(line) else (line, "", "")
        values = dict(word.split("=", 1) for word in f"{before} {behind}".split() if "=" in word)
        values["JobName"] = name
        if "JobId" in values:
            array, element = values.get("ArrayJobId"), values.get("ArrayTaskId")
            found[f"{array}_{element}" if array else values["JobId"]] = values
    return found or _from_accounting(number)


def _from_accounting(number: str) -> dict[str, Mapping[str, str]]:
    """Jobs that the controller has forgotten, where there is a database of jobs."""
    if shutil.which("sacct") is None:
        return {}
    try:
        done = ask("sacct", "-X", "-n", "-P", "-o", "JobID,State,ExitCode", "-j", number)
    except UserError:
        return {}
    lines = [line.split("|") for line in done.stdout.splitlines() if line.count("|") >= 2]
    return {parts[0]: {"JobState": parts[1].split(" ")[0], "ExitCode": parts[2]} for parts in lines}


def goes_on(job: Mapping[str, str]) -> bool:
    """Whether a job waits or runs."""
    return job["JobState"] in LIVE


def is_live(number: str, name: str) -> bool:
    """Whether a job of this id and name waits or runs."""
    return any(goes_on(job) and job.get("JobName", name) == name for job in job_states(number).values())
