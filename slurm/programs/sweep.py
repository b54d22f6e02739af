"""``transfer/sweep.py``: an array with an element for each run, and a job that compares them."""

from __future__ import annotations

from collections.abc import Sequence

from harness.errors import UserError
from slurm.programs.base import PROGRAMS, Situation
from slurm.steps import Step, Task


@PROGRAMS.register("transfer/sweep")
def sweep(words: Sequence[str], situation: Situation) -> list[Step]:
    """What is not finished yet as one array, then the comparison."""
    from harness.files import locked
    from transfer.sweep import listing
    from transfer.sweeping.config import read_sweep
    from transfer.sweeping.plan import make_plan

    if situation.before is not None:
        raise UserError("a sweep cannot stand behind --then: what it runs depends on the weights it starts from, so "
                        "launch it when they are there")
    config, extra = read_sweep(words)
    plan = make_plan(config, extra)
    if config.dry_run:
        print(listing(plan))
        return []
    folder = config.folder
    situation.refuse_held(folder)
    if not situation.dry_run:
        with locked(folder / ".lock", wait=False, held=f"{folder} is in use by another sweep: wait for it, or choose "
                                                       "another --name or --output"):
            plan.write()
    tasks = [Task(run.name, "transfer.main", run.argv[1:], run.folder) for run in plan.runs
             if not (run.folder / "results.json").exists()]
    gather = Task(folder.name, "slurm.gather", [str(folder), *words], folder)
    comparison = Step(f"{folder.name}-compare", folder, [gather], even_if_failed=True, alone=True, notes=plan.notes)
    if config.table or not tasks:
        return [comparison]
    done = len(plan.runs) - len(tasks)
    notes = [f"{done} of {len(plan.runs)} runs are finished already"] if done else []
    return [Step(folder.name, folder, tasks, notes=notes), comparison]
