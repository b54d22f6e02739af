"""This very process: for breakpoints."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from submitit.local.debug import DebugExecutor

from harness.errors import UserError
from slurm.clusters.base import CLUSTERS, Cluster, Launched
from slurm.config import LaunchConfig
from slurm.job import exit_code
from slurm.steps import Step


@CLUSTERS.register("debug")
class Debug(Cluster):
    """Runs as soon as it is submitted, in the foreground."""

    def __init__(self, config: LaunchConfig) -> None:
        super().__init__(config)
        self._codes: dict[str, int] = {}

    def check(self, steps: Sequence[Step]) -> None:
        """One process is what there is."""
        if self.config.processes > 1:
            raise UserError(f"{self.config.processes} processes are asked for, and --cluster debug is one: leave nodes "
                            "and tasks_per_node out, or use --cluster local")
        if self.config.after is not None:
            raise UserError("after is for --cluster slurm: use --then to run one program behind another here")

    def script(self, step: Step, after: str | None) -> str:
        """Command lines that amount to it."""
        return "\n".join(shlex.join(["python", "-m", task.module, *task.argv]) for task in step.tasks)

    def submit(self, step: Step, before: Launched | None) -> Launched:
        """Run it; a failed element leaves the others of its array alone."""
        if before is not None and self._codes[before.id] and not step.even_if_failed:
            raise UserError(f"{before.name} failed, so {step.name} was not started")
        place = step.place(self.config)
        executor = DebugExecutor(place)
        codes, jobs = [], []
        for task in step.tasks:
            jobs.append(executor.submit(task.job(self.config)))
            codes.append(exit_code(lambda job=jobs[-1]: job.results()[0]))
        number = jobs[0].job_id
        self._codes[number] = max(codes)
        return Launched(number, self.config.name or step.name, place, [job.paths.stdout for job in jobs], "-", "-",
                        step.folder)

    def live(self, number: str, name: str) -> bool:
        """Such a job ends with its process, and its folder's lock with it."""
        return False

    def follow(self, launched: Launched) -> int:
        """It is over."""
        return int(self._codes[launched.id] != 0)
