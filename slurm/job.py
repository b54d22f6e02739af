"""What runs on the nodes."""

from __future__ import annotations

import dataclasses
import importlib
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from harness.program import run_program

MISTAKE = 2  # exit code after an error: line
TIMES_UP = 128 + 12  # exit code of a program that SIGUSR2 stopped


@dataclass
class TrainingJob:
    """A program of ours in one process of a job, or in all of them; submitit calls it, again after every requeue.

    Args:
        module: whose ``main`` runs.
        argv: its options.
        processes: of the whole job.
        gpus: of each node.
        cores: of each process.
        notice: seconds between the signal to stop and the end.
        later: options more for every start but the first.
        started: whether this is a later start.
    """

    module: str
    argv: list[str] = field(default_factory=list)
    processes: int = 1
    gpus: int = 0
    cores: int | None = None
    notice: float = 60
    later: list[str] = field(default_factory=list)
    started: bool = False

    def checkpoint(self):
        """What runs after a requeue: the same, which goes on from what is on the disk."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(dataclasses.replace(self, started=True))

    def __call__(self) -> int:
        """Run it; 0 when done. Anything else ends the process with its code.

        Raises:
            SystemExit: it failed, or starts again.
        """
        from submitit import JobEnvironment

        job = JobEnvironment()
        if job.cluster == "debug":
            code = exit_code(self._main)
            if code:
                sys.exit(code)
            return 0
        _forget_results(job)
        from slurm.environment import check_devices, join_world
        from slurm.requeue import Requeue

        def prepared() -> int:
            join_world(job, self.processes, self.cores)
            check_devices(self.gpus)
            return self._main()

        with Requeue(job, self.notice) as requeue:
            try:
                code = exit_code(prepared)
            except Exception:  # submitit would leave a result, which looks like success
                traceback.print_exc()
                code = 1
            if code == TIMES_UP:
                code = exit_code(requeue.now)
        if code == MISTAKE and job.cluster == "slurm":
            with suppress(OSError):  # for the script, which sees one code for all processes
                (job.paths.folder / f"mistake-{job.raw_job_id}").touch()
        if code:
            sys.exit(code)
        return 0

    def _main(self) -> int:
        # After a node's failure SLURM starts what was submitted first, and only counts.
        again = self.started or os.environ.get("SLURM_RESTART_COUNT", "0") != "0"
        sys.argv = [self.module, *self.argv, *(self.later if again else [])]
        return importlib.import_module(self.module).main()


def exit_code(main: Callable[[], int]) -> int:
    """The code that a program would end with; what a user can mend has been said in one line."""
    try:
        run_program(main)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)


def _forget_results(job: object) -> None:
    """Remove what an earlier start of this process left, which submitit would take for the end, or stumble over."""
    paths = job.paths
    old = [paths.result_pickle, paths.result_pickle.with_suffix(".pkl.save_tmp")]
    if not job.global_rank:
        old.append(paths.submitted_pickle.with_suffix(".pkl.save_tmp"))
    for path in old:
        with suppress(OSError):
            os.unlink(path)
