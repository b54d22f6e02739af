"""Train on a cluster: ``python -m slurm.launch [--config configs/slurm/gpu.yaml] [options] -- pretrain/main.py …``.

    python -m slurm.launch --partition gpu --gpus-per-node 4 -- pretrain/main.py --config configs/pretrain/coco_200.yaml
    python -m slurm.launch … -- pretrain/main.py --name p --then transfer/main.py --config …     # one behind the other
    python -m slurm.launch --parallel 8 … -- transfer.sweep --config configs/sweep/demo.yaml     # an array
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UserError
from harness.program import run_program

if TYPE_CHECKING:
    from slurm.clusters.base import Cluster, Launched
    from slurm.config import LaunchConfig
    from slurm.steps import Step

INSTALL = "pip install 'submitit>=1.5.4,<1.6'"


def main() -> int:
    """Check everything, submit, and say what was submitted."""
    from slurm.config import read_launch

    config, commands = read_launch()
    try:
        import submitit  # noqa: F401
    except ImportError as error:
        raise UserError(f"launching needs submitit, which is not installed: {INSTALL}") from error

    from slurm.clusters.base import CLUSTERS
    from slurm.steps import Step, Task

    cluster = CLUSTERS.get(config.cluster)(config)
    if not config.dry_run:  # what is wrong with the cluster's part shows at once; networks take seconds to build
        cluster.check([Step("check", Path("check"), [Task("check", "", [], Path("check"))])])
    steps = plan(config, commands)
    for step in steps:
        for note in step.notes:
            print(f"note: {step.name}: {note}")
    if config.dry_run:
        for number, step in enumerate(steps):
            if len(steps) > 1:
                print(f"# {step.name}, {number + 1} of {len(steps)} jobs")
            print(cluster.script(step, "<id of the job before>" if number else None))
        if config.cluster == "slurm":
            print("nothing was submitted; SLURM looks at a script when it is", file=sys.stderr)
        return 0
    launched: list[Launched] = []
    try:
        for job in submit(cluster, steps):
            print(job.text(), flush=True)
            launched.append(job)
        if not config.wait and config.cluster != "debug":
            return 0
        return max((cluster.follow(job) for job in launched), default=0)
    except KeyboardInterrupt:
        if config.cluster == "debug" or not launched:
            raise
        print(f"\nthe job goes on; end it with: {'; '.join(job.cancel for job in launched)}", flush=True)
        return 130


def plan(config: LaunchConfig, commands: Sequence[Sequence[str]]) -> list[Step]:
    """What is still to be run; every configuration is read and checked.

    Args:
        config: of the launch.
        commands: the words of each program, one behind the other.

    Raises:
        UserError: a mistake in one, or a folder that a job holds.
    """
    from slurm.claims import refuse_held
    from slurm.programs.base import Situation, find_program

    programs = [find_program(words[0]) for words in commands]
    steps: list[Step] = []
    live = _live(config)
    for program, words in zip(programs, commands, strict=True):
        before = steps[-1] if steps else None
        if before is not None and before.alone:
            raise UserError("nothing can stand behind a sweep, which leaves no weights to start from: launch it when "
                            "the sweep is done, or with --after and the id of its last job")
        steps += program(words[1:], Situation(before, config.dry_run, lambda folder: refuse_held(folder, live)))
    return [step for step in steps if step.tasks]


def submit(cluster: Cluster, steps: Sequence[Step]) -> Iterator[Launched]:
    """Submit the steps, each behind the one before, and yield their jobs as they are submitted.

    Raises:
        UserError: the cluster refuses one, of which it tells as far as it can before the first is submitted.
    """
    from slurm.claims import claimed

    if not steps:
        return
    cluster.check(steps)
    before = None
    with claimed([step.folder for step in steps], _live(cluster.config)) as keep:
        for step in steps:
            before = cluster.submit(step, before)
            keep(step.folder, {"cluster": cluster.config.cluster, "job": before.id, "name": before.name,
                               "cancel": before.cancel})
            yield before


def _live(config: LaunchConfig) -> Callable[[dict[str, str]], bool]:
    """Whether the job of a claim waits or runs."""
    from slurm.clusters.base import CLUSTERS

    return lambda holder: CLUSTERS.get(holder["cluster"])(config).live(holder["job"], holder["name"])


if __name__ == "__main__":
    run_program(main)
