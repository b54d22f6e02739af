"""What is to be run, before any cluster is asked."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from slurm.config import LaunchConfig, asks_for_gpus, plain_key
from slurm.job import TrainingJob


@dataclass
class Task:
    """A program with its options.

    Args:
        name: of the run.
        module: whose ``main`` it is.
        argv: its options.
        folder: where it writes; the whole run is one folder.
        later: options more when it is started again.
    """

    name: str
    module: str
    argv: list[str]
    folder: Path
    later: list[str] = field(default_factory=list)

    def job(self, config: LaunchConfig) -> TrainingJob:
        """What a cluster runs."""
        return TrainingJob(self.module, self.argv, config.processes, config.gpus, config.cpus_per_task,
                           float(config.signal_delay), self.later)


@dataclass
class Step:
    """One job, or an array of them.

    Args:
        name: of the job.
        folder: of the run or sweep that nobody else may write at the same time.
        tasks: one, or the elements of an array; none if all is finished.
        even_if_failed: start although the step before has failed, in part or wholly.
        alone: needs one process without GPUs for an hour at most, whatever is asked for.
        notes: what the user should know.
    """

    name: str
    folder: Path
    tasks: list[Task]
    even_if_failed: bool = False
    alone: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def array(self) -> bool:
        """Whether the tasks are elements of an array."""
        return len(self.tasks) > 1

    def resources(self, config: LaunchConfig) -> LaunchConfig:
        """What is asked of the cluster for it."""
        if not self.alone:
            return config
        sbatch = {key: value for key, value in config.sbatch.items()
                  if not asks_for_gpus(key, value) and plain_key(key) != "exclusive"}
        cores = config.cpus_per_task and min(config.cpus_per_task, 2)
        return dataclasses.replace(config, nodes=1, tasks_per_node=1, gpus_per_node=0, cpus_per_task=cores,
                                   time=f"{min(config.minutes, 60)}m", sbatch=sbatch)

    def place(self, config: LaunchConfig) -> Path:
        """Where its scripts and logs go: named after the run, whatever the ids of its jobs."""
        root = Path(config.folder).expanduser() if config.folder else self.folder.parent / "slurm"
        return (root / self.folder.name).absolute()
