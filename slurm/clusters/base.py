"""What every cluster offers."""

from __future__ import annotations

import abc
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.registry import Registry
from slurm.config import LaunchConfig
from slurm.steps import Step

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Launched:
    """A job, or an array of them, that was submitted.

    Args:
        id: the cluster's.
        name: of the job.
        folder: of its scripts and logs.
        logs: of its first process, one for each element of an array.
        watch: command that shows how it is.
        cancel: command that ends it.
        output: the run's folder.
    """

    id: str
    name: str
    folder: Path
    logs: list[Path]
    watch: str
    cancel: str
    output: Path

    def text(self) -> str:
        """For people."""
        log = shlex.quote(str(self.logs[0])) if len(self.logs) == 1 else \
            f"{shlex.quote(str(self.logs[0].parent))}/*_log.out"
        return "\n".join([
            f"job {self.id}: {self.name}",
            f"    writes  {self.output}",
            f"    log     tail -F {log}",
            f"    watch   {self.watch}",
            f"    cancel  {self.cancel}",
        ])


class Cluster(abc.ABC):
    """A place for jobs.

    Args:
        config: what was asked for.
    """

    def __init__(self, config: LaunchConfig) -> None:
        self.config = config

    @abc.abstractmethod
    def check(self, steps: Sequence[Step]) -> None:
        """Refuse what cannot run here; nothing is submitted or written.

        Raises:
            UserError: why.
        """

    @abc.abstractmethod
    def script(self, step: Step, after: str | None) -> str:
        """What would be submitted, behind the job ``after``."""

    @abc.abstractmethod
    def submit(self, step: Step, before: Launched | None) -> Launched:
        """Submit a step behind the one before.

        Raises:
            UserError: it is refused.
        """

    @abc.abstractmethod
    def live(self, number: str, name: str) -> bool:
        """Whether a job waits or runs here."""

    @abc.abstractmethod
    def follow(self, launched: Launched) -> int:
        """Show the log until the end.

        Returns:
            0 if all went well, else 1.
        """


CLUSTERS: Registry[type[Cluster]] = Registry("cluster", "slurm.clusters")
