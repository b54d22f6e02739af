"""Many runs over axes of options, and their comparison: ``python -m transfer.sweep [--config FILE.yaml] [options]``.

    python -m transfer.sweep --config configs/sweep/demo.yaml [--dry-run] [--jobs 2]
    python -m transfer.sweep --axes.balance.name '[equal, dwa]' --axes.optimizer.lr '[0.001, 0.003]' -- --epochs 20
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from types import FrameType

from harness.program import run_program


def main() -> int:
    """Plan, check, run what is not finished, and compare."""
    from transfer.sweeping.config import read_sweep

    sweep, extra = read_sweep()

    from harness.cells import run_cells
    from harness.files import locked
    from transfer.sweeping.outcome import Outcome
    from transfer.sweeping.plan import make_plan
    from transfer.sweeping.report import summary, write_outcome

    plan = make_plan(sweep, extra)
    for note in plan.notes:
        print(f"note: {note}")
    if sweep.dry_run:
        print(listing(plan))
        return 0
    folder = sweep.folder
    with locked(folder / ".lock", wait=False, held=f"{folder} is in use by another sweep: wait for it, or choose "
                                                   "another --name or --output"):
        plan.write()
        failed: dict[str, str] = {}
        if not sweep.table:
            jobs, environments = places(sweep.jobs, sweep.threads)
            print(f"{folder}: {len(plan.runs)} runs, {jobs} at once", flush=True)
            before = {number: signal.signal(number, _stop) for number in (signal.SIGTERM, signal.SIGUSR1)}
            try:
                failed = run_cells([run.cell for run in plan.runs], folder / "logs", jobs, environments)
            except (KeyboardInterrupt, SystemExit):
                print(f"{folder}: stopped, and what ran has saved: the same command goes on from here", flush=True)
                raise
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)
        outcome = Outcome(plan, failed)
        if outcome.done:
            write_outcome(outcome)
            print(f"\n{summary(outcome)}\n\nreport: {folder / 'report.html'}")
        else:
            print("\n".join(f"failed: {name}: {reason}" for name, reason in failed.items()) or "nothing is finished")
    return 1 if failed else 0


def places(jobs: int, threads: int) -> tuple[int, list[Mapping[str, str]]]:
    """How many runs go on at once, and the variables of each: the GPUs in turn, where there are any."""
    import torch

    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    count = torch.cuda.device_count()
    gpus = visible[:count] if visible else [str(i) for i in range(count)]
    cores = max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    chosen = jobs or len(gpus) or max(1, cores // threads)
    return chosen, [{"CUDA_VISIBLE_DEVICES": name} for name in gpus]


def listing(plan) -> str:
    """Every run, whether it is finished, and the options that make it another than the base."""
    from transfer.sweeping.space import words

    lines = []
    for entry in (*plan.singles, *plan.entries):
        lines.append(f"{entry.label}: {' '.join(words(entry.options)) or 'as the base'}")
        for runs in entry.runs.values():
            for run in runs:
                state = "finished" if (run.folder / "results.json").exists() else "to run"
                lines.append(f"    {state:<9}{run.name}")
    runs = plan.runs
    done = sum((run.folder / "results.json").exists() for run in runs)
    lines.append(f"{len(plan.entries)} settings, {len(runs)} runs, {done} finished, in {plan.config.folder}")
    return "\n".join(lines)


def _stop(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    run_program(main)
