"""Branched networks by task affinity: ``python -m transfer.branch [--config FILE.yaml] [--budget 0.7] [options]``."""

from __future__ import annotations

from pathlib import Path

from harness.program import run_program

DEMO = Path(__file__).resolve().parent.parent / "configs" / "transfer" / "scenes" / "branch.yaml"


def main() -> int:
    """Read the configuration; measure task affinities, search the tree, train it and what it is compared with."""
    from harness.config import load
    from harness.run import default_folder
    from harness.world import start
    from transfer.branching.config import BranchConfig

    config = load(BranchConfig, prog="python -m transfer.branch", base=DEMO)

    from transfer.branching.program import run_branch
    from transfer.single_run import inputs

    folder = default_folder("branch", config.data.name, config, config.name, config.output, inputs(config))
    world = start(mixed_precision=config.mixed_precision, threads=config.threads, project_dir=folder)
    return run_branch(config, folder, world)


if __name__ == "__main__":
    run_program(main)
