"""What a launch is asked for, and how it is read."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from harness.config import load
from harness.errors import UserError
from slurm.durations import minutes

PROGRAM = "python -m slurm.launch"
USAGE = f"{PROGRAM} [--config configs/slurm/gpu.yaml] [options] -- pretrain/main.py --config …"
FLAGS = ("dry_run", "wait")
#: Keys of sbatch that have another name here.
FIELDS = {"job_name": "name", "time": "time", "nodes": "nodes", "partition": "partition", "account": "account",
          "qos": "qos", "constraint": "constraint", "exclude": "exclude", "cpus_per_task": "cpus_per_task",
          "gpus_per_node": "gpus_per_node", "ntasks_per_node": "tasks_per_node", "mem": "mem", "signal": "signal_delay",
          "array": "parallel", "dependency": "after"}
#: Keys of sbatch that the launch itself depends on.
OWN = ("ntasks", "ntasks_per_core", "ntasks_per_gpu", "ntasks_per_socket", "output", "error", "open_mode", "requeue",
       "no_requeue", "chdir", "wrap", "parsable", "test_only", "wait", "input", "export", "export_file",
       "kill_on_invalid_dep")


#: Keys whose values are times.
TIMES = ("begin", "deadline", "time_min")


def plain_key(key: object) -> str:
    """A key of sbatch as it is called here."""
    return str(key).lstrip("-").replace("-", "_")


def asks_for_gpus(key: object, value: object) -> bool:
    """Whether a key of sbatch does."""
    plain = plain_key(key)
    return plain.startswith("gpus") or plain in ("gres", "tres_per_task") and "gpu" in str(value)


@dataclass
class LaunchConfig:
    """Run pretrain/main.py, transfer/main.py or transfer.sweep as jobs of a cluster; what runs stands after --, and
    after --then what starts when that has ended well.

    Args:
        cluster: slurm; local runs the same on this machine, in the background; debug in this process.
        name: of the job; by default that of the run.
        partition: where to run.
        account: who pays.
        qos: quality of service.
        constraint: features that nodes must have.
        exclude: nodes not to use.
        time: limit of one job, as 90m, 24h, 1d12h or SLURM's days-hours:minutes:seconds. A run that takes longer goes
            on in the same job, started again.
        nodes: how many.
        tasks_per_node: processes on each node; by default one for each GPU, or one.
        cpus_per_task: cores of each process; data workers share them with it.
        gpus_per_node: GPUs on each node, as 4, or with their type as sinfo shows it, a100:4.
        mem: memory of each node, for example 32G.
        setup: shell lines before the program, for example 'module load cuda'; --setup LINE may be given several times.
        sbatch: any other key of sbatch, for example --sbatch.reservation NAME or {exclusive: true}.
        srun: more words for srun.
        python: command that starts Python on the nodes, for example 'apptainer exec image.sif python'; this one's by
            default.
        signal_delay: seconds before the end at which a job is told to save and to start again. Choose more than one
            step, one validation and one save take together.
        max_timeouts: how often a job that reached its time limit starts again.
        restarts: how often a job starts again after a process of it crashed or was killed, from its last checkpoint.
            What ends with an error: line never does.
        parallel: jobs of a sweep at once.
        after: id of a job that must have ended well before this one starts.
        folder: where scripts and logs go; slurm/NAME beside the run's folder by default.
        dry_run: only print the script.
        wait: follow the log until the end, and exit with 1 if the job failed.
    """

    cluster: str = "slurm"
    name: str | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    time: str | int = "24h"
    nodes: int = 1
    tasks_per_node: int | None = None
    cpus_per_task: int | None = None
    gpus_per_node: int | str = 0
    mem: str | None = None
    setup: list[str] = field(default_factory=list)
    sbatch: dict[str, Any] = field(default_factory=dict)
    srun: list[str] = field(default_factory=list)
    python: str | None = None
    signal_delay: int = 120
    max_timeouts: int = 100
    restarts: int = 1
    parallel: int = 8
    after: str | None = None
    folder: str | None = None
    dry_run: bool = False
    wait: bool = False

    @property
    def minutes(self) -> int:
        """The time limit."""
        return minutes(self.time)

    @property
    def gpus(self) -> int:
        """GPUs on each node; at least 1 where keys of sbatch ask for some in another way."""
        counted = int(str(self.gpus_per_node).rpartition(":")[2])
        return counted or int(any(asks_for_gpus(key, value) for key, value in self.sbatch.items()))

    @property
    def tasks(self) -> int:
        """Processes on each node."""
        return self.tasks_per_node or max(1, self.gpus)

    @property
    def processes(self) -> int:
        """Processes of a job."""
        return self.nodes * self.tasks

    def check(self) -> None:
        """Refuse what cannot work anywhere.

        Raises:
            UserError: a field with such a value.
        """
        for name, least in (("nodes", 1), ("tasks_per_node", 1), ("cpus_per_task", 1), ("signal_delay", 1),
                            ("max_timeouts", 0), ("restarts", 0), ("parallel", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"{name} is {value}: give {least} or more")
        if self.mem is not None and not re.fullmatch(r"\d+[KMGTkmgt]?", self.mem):
            raise UserError(f"mem is '{self.mem}': give the memory of each node, as 32G or 500M")
        if not re.fullmatch(r"([\w.-]+:)?\d+", str(self.gpus_per_node)):
            raise UserError(f"gpus_per_node is {self.gpus_per_node!r}: give a number, or a type with one, as a100:4")
        if self.gpus_per_node and self.tasks > self.gpus:
            raise UserError(f"tasks_per_node is {self.tasks} and gpus_per_node {self.gpus_per_node}: a GPU takes one "
                            "process, so give as many GPUs as processes")
        if self.signal_delay >= 60 * self.minutes:
            raise UserError(f"signal_delay is {self.signal_delay} seconds, and the whole time limit {self.minutes} "
                            "min: give a longer time or a shorter signal_delay")
        if self.after is not None and not re.fullmatch(r"\d+(_\d+)?", self.after):
            raise UserError(f"after is '{self.after}': give the id of a job, as launch and squeue print it")
        self._check_sbatch()

    def _check_sbatch(self) -> None:
        for key, value in self.sbatch.items():
            plain = plain_key(key)
            if plain in FIELDS:
                raise UserError(f"sbatch.{key} has a field of its own here: give --{FIELDS[plain]} instead")
            if plain in OWN:
                raise UserError(f"sbatch.{key} is the launch's own: leave it out")
            if plain in TIMES and isinstance(value, int):
                raise UserError(f"sbatch.{key} is the number {value}: YAML reads 16:30 so, write it in quotes")


def read_launch(argv: Sequence[str] | None = None) -> tuple[LaunchConfig, list[list[str]]]:
    """The launch that a command line asks for, and the commands that stand after ``--``, one for each job in turn.

    Raises:
        UserError: a mistake in it, or in its file.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    words, command = (words[: words.index("--")], words[words.index("--") + 1:]) if "--" in words else (words, [])
    if words and not words[0].startswith("-"):
        raise UserError(f"'{words[0]}' stands where options of the launch are: what is to run stands after --, as in "
                        f"{USAGE}")
    commands = _split(command)
    words, keys = _take_sbatch([_flag(word, words[i + 1:]) for i, word in enumerate(words)])
    config = load(LaunchConfig, _with_setup(words), prog=PROGRAM)
    config.sbatch = {**config.sbatch, **keys}
    if not all(commands):
        raise UserError(f"there is nothing to launch{' after --then' if len(commands) > 1 else ''}: {USAGE}")
    config.check()
    return config, commands


def _split(words: Sequence[str]) -> list[list[str]]:
    """Commands between the words ``--then``."""
    commands: list[list[str]] = [[]]
    for word in words:
        if word == "--then":
            commands.append([])
        else:
            commands[-1].append(word)
    return commands


def _flag(word: str, following: Sequence[str]) -> str:
    """``--dry-run`` and ``--wait`` may stand alone, and dashes be underscores in all names."""
    if not word.startswith("--"):
        return word
    option, equal, value = word.removeprefix("--").partition("=")
    first, dot, rest = option.partition(".")
    name = first.replace("-", "_") + dot + rest
    alone = name in FLAGS and not equal and (not following or following[0].startswith("--"))
    return f"--{name}=true" if alone else f"--{name}{equal}{value}"


def _take_sbatch(words: Sequence[str]) -> tuple[list[str], dict[str, str | bool]]:
    """Words without ``--sbatch.KEY VALUE``, and these as text, which YAML would make numbers of: 16:30."""
    rest, keys, words = [], {}, list(words)
    while words:
        word = words.pop(0)
        key, equal, value = word.removeprefix("--sbatch.").partition("=")
        if not word.startswith("--sbatch.") or not key:
            rest.append(word)
        elif not equal and (not words or words[0].startswith("--")):
            keys[key] = True
        else:
            value = value if equal else words.pop(0)
            keys[key] = {"true": True, "false": False}.get(value, value)
    return rest, keys


def _with_setup(words: Sequence[str]) -> list[str]:
    """All ``--setup LINE`` as one list, behind the lines of the file."""
    rest, lines, words = [], [], list(words)
    while words:
        word = words.pop(0)
        if word == "--setup" and words:
            lines.append(words.pop(0))
        elif word.startswith("--setup="):
            lines.append(word.removeprefix("--setup="))
        else:
            rest.append(word)
    given: list[str] = []
    for line in lines:  # a list in brackets is meant as one
        try:
            parsed = yaml.safe_load(line) if line.lstrip().startswith("[") else None
        except yaml.YAMLError:
            parsed = None
        given += [str(item) for item in parsed] if isinstance(parsed, list) else [line]
    return [*rest, *(f"--setup+={line}" for line in given)]
