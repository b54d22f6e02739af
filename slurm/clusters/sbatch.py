"""SLURM."""

from __future__ import annotations

import dataclasses
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.slurm.slurm import SlurmExecutor

from harness.errors import UserError
from slurm import controller
from slurm.clusters.base import CLUSTERS, ROOT, Cluster, Launched
from slurm.config import LaunchConfig, plain_key
from slurm.logs import Tail
from slurm.steps import Step

POLL = 2.0
HABITS = ("partition", "account", "qos", "constraint")

_AGAIN = """\
code=$?
# One process that ends with an error: line has the others killed, by which srun's code is theirs.
mistake={folder}/mistake-$SLURM_JOB_ID
[ ! -e "$mistake" ] || {{ code=2; rm -f "$mistake"; }}
# 2: a mistake of the user's; 255: is being started again already; 140: told to stop before it could listen.
why=crash
case $code in 0|2|255) most=0 ;; 140) why=signal most={timeouts} ;; *) most={restarts} ;; esac
# The last element of an array to start has the array's own id, by which SLURM would start all of them again.
job=$SLURM_JOB_ID
[ -z "$SLURM_ARRAY_JOB_ID" ] || job=${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID
starts={folder}/starts-$SLURM_JOB_ID-$why
count=$(($(cat "$starts" 2>/dev/null || echo 0) + 1))
if [ $count -le $most ] && scontrol show job -o "$job" | grep -q 'JobState=RUNNING'; then
  echo $count > "$starts"
  echo "a process ended with code $code: starts again from the last checkpoint ($count of $most)"
  scontrol requeue "$job" && sleep 60
fi
exit $code"""


class _Executor(SlurmExecutor):
    """submitit's, which also writes scripts where there is no SLURM."""

    @classmethod
    def affinity(cls) -> int:
        return 2

    def text(self, count: int | None) -> str:
        """The script of a job, or of an array of ``count``."""
        parameters = dict(self.parameters)
        try:
            if count is not None:
                self.parameters["map_count"] = count
            return self._make_submission_file_text(self._submitit_command_str, "")
        finally:
            self.parameters = parameters


@CLUSTERS.register("slurm")
class Slurm(Cluster):
    """Jobs through sbatch."""

    def __init__(self, config: LaunchConfig) -> None:
        super().__init__(_with_habits(config))

    def check(self, steps: Sequence[Step]) -> None:
        """SLURM itself looks at every script."""
        controller.need_slurm()
        controller.check_limits(self.config.partition, self.config.minutes)
        for step in steps:
            controller.test_script(self.script(step, None), self.config.partition)

    def script(self, step: Step, after: str | None) -> str:
        """What goes to sbatch."""
        return self._executor(step, after).text(len(step.tasks) if step.array else None)

    def submit(self, step: Step, before: Launched | None) -> Launched:
        """Submit it; everything has been checked."""
        executor = self._executor(step, before.id if before else None)
        place = step.place(self.config)
        place.mkdir(parents=True, exist_ok=True)
        for old in place.glob("starts-*") if before is None else ():  # of jobs that are over
            old.unlink()
        jobs = [task.job(step.resources(self.config)) for task in step.tasks]
        try:
            with controller.clean_environment():
                submitted = executor.submit_array(jobs) if step.array else [executor.submit(jobs[0])]
        except (FailedJobError, FailedSubmissionError) as error:
            raise UserError(f"SLURM refuses the job: {controller.refusal(str(error))}") from error
        for link in place.glob(".submission_file_*.sh"):
            link.unlink()
        number = submitted[0].job_id.split("_")[0]
        logs = [Path(str(job.paths.stdout).replace("%t", "0")) for job in submitted]
        return Launched(number, self.config.name or step.name, place, logs, f"squeue -j {number}", f"scancel {number}",
                        step.folder)

    def live(self, number: str, name: str) -> bool:
        """Whether the controller knows it as such."""
        return controller.is_live(number, name)

    def follow(self, launched: Launched) -> int:
        """Show the log, and every change of state, until no part of the job waits or runs."""
        tails = [Tail(path) for path in launched.logs] if len(launched.logs) == 1 else []
        shown, unknown = "", 0
        over: dict[str, Mapping[str, str]] = {}
        while True:
            states = controller.job_states(launched.id)
            for tail in tails:
                tail.show()
            live = {number: job for number, job in states.items() if controller.goes_on(job)}
            # What has ended is kept: SLURM forgets it after minutes, also elements of an array that still runs.
            over = {number: job for number, job in {**over, **states}.items() if number not in live}
            said = _summary({**over, **live}) if states else ""
            if said and said != shown:
                print(f"job {launched.id}: {said}", flush=True)
                shown = said
            unknown = 0 if states else unknown + 1
            if states and not live:
                break
            if unknown > 30:
                raise UserError(f"SLURM says nothing of job {launched.id} any more: look at its log, "
                                f"{launched.logs[0]}")
            time.sleep(POLL)
        for tail in tails:
            tail.show()
        return int(any(job["JobState"] != "COMPLETED" for job in over.values()))

    def _executor(self, step: Step, after: str | None) -> _Executor:
        config = step.resources(self.config)
        # One folder that is there before the job is: SLURM makes none for the log of a job that starts at once.
        executor = _Executor(step.place(config), config.max_timeouts, python=config.python)
        executor.update_parameters(**_parameters(step, config, after))
        return executor


def _with_habits(config: LaunchConfig) -> LaunchConfig:
    """With what the user has set for all jobs in variables of sbatch; in the script, so that it shows."""
    fields = {name: os.environ.get(f"SBATCH_{name.upper()}") or None for name in HABITS
              if getattr(config, name) is None}
    reservation = os.environ.get("SBATCH_RESERVATION")
    sbatch = {**({"reservation": reservation} if reservation else {}), **config.sbatch}
    return dataclasses.replace(config, **fields, sbatch=sbatch)


def _parameters(step: Step, config: LaunchConfig, after: str | None) -> dict[str, Any]:
    """As submitit names them."""
    extra = {plain_key(key).replace("_", "-"): value for key, value in config.sbatch.items()
             if value is not False and value is not None}
    extra["requeue"] = True  # after a node's failure, and by preemption
    extra["signal"] = f"USR2@{config.signal_delay}"  # submitit would take another from its own variable
    first = config.after if after is None else after
    if first:
        extra["kill-on-invalid-dep"] = "yes"
    kind = "afterany" if step.even_if_failed else "afterok"
    srun = ["--kill-on-bad-exit=1", *([f"--cpus-per-task={config.cpus_per_task}"] if config.cpus_per_task else []),
            *config.srun]
    lines = [*config.setup, "set +euo pipefail  # what stands behind the program looks at its code",
             f"export PYTHONPATH={shlex.quote(str(ROOT))}${{PYTHONPATH:+:$PYTHONPATH}}"]
    again = _AGAIN.format(restarts=config.restarts, timeouts=config.max_timeouts,
                          folder=shlex.quote(str(step.place(config))))
    return {
        "job_name": config.name or step.name, "time": config.minutes, "nodes": config.nodes,
        "ntasks_per_node": config.tasks, "cpus_per_task": config.cpus_per_task,
        "gpus_per_node": config.gpus_per_node or None, "mem": config.mem, "partition": config.partition,
        "account": config.account, "qos": config.qos, "constraint": config.constraint, "exclude": config.exclude,
        "signal_delay_s": config.signal_delay, "dependency": f"{kind}:{first}" if first else None,
        "array_parallelism": config.parallel, "stderr_to_stdout": True, "srun_args": srun, "setup": lines,
        "teardown": again.splitlines(), "additional_parameters": extra, "wckey": None,
    }


def _summary(states: dict[str, Any]) -> str:
    """How a job is, or how many elements of an array are how."""
    if len(states) == 1:
        (job,) = states.values()
        why = f" ({job['Reason']})" if job["JobState"] == "PENDING" and job.get("Reason", "None") != "None" else ""
        times = job.get("Restarts", "0")
        return f"{job['JobState'].lower()}{why}{f', started again {times} times' if times != '0' else ''}"
    counts: dict[str, int] = {}
    for job in states.values():
        counts[job["JobState"].lower()] = counts.get(job["JobState"].lower(), 0) + 1
    return ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
