"""This machine, in the background: the same job without SLURM."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from submitit.local.local import LocalExecutor

from harness.errors import UserError
from slurm.clusters.base import CLUSTERS, ROOT, Cluster, Launched
from slurm.config import LaunchConfig
from slurm.controller import clean_environment
from slurm.logs import Tail
from slurm.steps import Step

POLL = 0.5


@CLUSTERS.register("local")
class Local(Cluster):
    """Processes of this machine, as submitit starts them; one step waits for the one before in the foreground."""

    def __init__(self, config: LaunchConfig) -> None:
        super().__init__(config)
        self._jobs: dict[str, list[Any]] = {}

    def check(self, steps: Sequence[Step]) -> None:
        """One node is what there is."""
        if self.config.nodes > 1:
            raise UserError(f"nodes is {self.config.nodes}, and --cluster local is one machine: leave nodes out, or "
                            "use --cluster slurm")
        if self.config.after is not None:
            raise UserError("after is for --cluster slurm: use --then to run one program behind another here")

    def script(self, step: Step, after: str | None) -> str:
        """Command lines that amount to it."""
        config = step.resources(self.config)
        lines = [*config.setup, f"export PYTHONPATH={shlex.quote(str(ROOT))}${{PYTHONPATH:+:$PYTHONPATH}}"]
        lines += [f"# {config.processes} process{'es' * (config.processes > 1)}"]
        lines += [shlex.join(["python", "-m", task.module, *task.argv]) for task in step.tasks]
        return "\n".join(lines)

    def submit(self, step: Step, before: Launched | None) -> Launched:
        """Start it; the elements of an array ``parallel`` at a time, of which the last are left running."""
        if before is not None and self.follow(before) and not step.even_if_failed:
            raise UserError(f"{before.name} failed, so {step.name} was not started: its log is {before.logs[0]}")
        place = step.place(self.config)
        place.mkdir(parents=True, exist_ok=True)
        started: list[Any] = []
        config = step.resources(self.config)
        for task in step.tasks:
            while sum(not job.done() for job in started) >= config.parallel:
                time.sleep(POLL)
            executor = LocalExecutor(place, config.max_timeouts, python=config.python)
            executor.update_parameters(
                timeout_min=config.minutes, tasks_per_node=config.tasks, gpus_per_node=config.gpus,
                signal_delay_s=config.signal_delay, stderr_to_stdout=True, setup=config.setup)
            started.append(self._start(executor, task.job(config)))
        first = started[0].job_id
        self._jobs[first] = started
        logs = [Path(str(job.paths.stdout)) for job in started]
        cancel = "kill " + " ".join(job.job_id for job in started)
        return Launched(first, self.config.name or step.name, place, logs, f"ps {first}", cancel, step.folder)

    @staticmethod
    def _start(executor: LocalExecutor, job: Any) -> Any:
        before = os.environ.get("PYTHONPATH")
        if shutil.which("setsid"):  # or what is typed at the terminal, and its end, would reach them
            executor.python = f"setsid {executor.python}"
        with clean_environment(), _ignored(signal.SIGINT, signal.SIGHUP):
            os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), before]))
            try:
                return executor.submit(job)
            finally:
                if before is None:
                    del os.environ["PYTHONPATH"]
                else:
                    os.environ["PYTHONPATH"] = before

    def live(self, number: str, name: str) -> bool:
        """Whether the process is there and is what we started."""
        try:
            status = Path(f"/proc/{number}/status").read_text()
            words = Path(f"/proc/{number}/cmdline").read_bytes()
        except OSError:
            return False
        return "\nState:\tZ" not in status and b"submitit" in words

    def follow(self, launched: Launched) -> int:
        """Show the log until all processes are done."""
        jobs = self._jobs[launched.id]
        tails = [Tail(path) for path in launched.logs] if len(jobs) == 1 else []
        while True:
            done = all(job.done() for job in jobs)
            for tail in tails:
                tail.show()
            if done:
                return int(any(not _succeeded(job) for job in jobs))
            time.sleep(POLL)


@contextmanager
def _ignored(*numbers: int) -> Iterator[None]:
    """Start programs that ignore these signals."""
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _succeeded(job: Any) -> bool:
    return all(path.exists() for path in (Path(str(sub.paths.result_pickle)) for sub in job._sub_jobs or [job]))
