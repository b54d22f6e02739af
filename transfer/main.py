"""Fine-tune multi-task networks: ``accelerate launch transfer/main.py [--config FILE.yaml] [options]``."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:] = [str(HERE.parent), *(path for path in sys.path if Path(path or ".").resolve() != HERE)]

from harness.program import run_program  # noqa: E402

DEMO = HERE.parent / "configs" / "transfer" / "scenes" / "demo.yaml"


def main() -> int:
    """Read the configuration; train, evaluate and compare one run, or without arguments the demo sweep."""
    from harness.config import load
    from harness.run import Run, default_folder
    from harness.world import available_trackers, start
    from transfer.config import TransferConfig

    config = load(TransferConfig, prog="transfer/main.py", base=DEMO)

    from transfer.baselines import single_task_results
    from transfer.demo import run_demo
    from transfer.engine import check
    from transfer.results import joined_singles, read_results
    from transfer.single_run import inputs, run_single
    from transfer.table import build_table

    label, extra = f"{config.data.name}-{config.model.name}", inputs(config)
    folder = default_folder("transfer", label, config, config.name, config.output, extra)
    config.output = str(folder)
    world = start(mixed_precision=config.mixed_precision, threads=config.threads,
                  log_with=available_trackers(config.loop.trackers), project_dir=folder)
    if len(sys.argv) == 1:
        return run_demo(DEMO, world)
    with Run(folder, config, resume=config.resume, main=world.is_main_process, extra=extra) as run:
        world.wait_for_everyone()  # a folder that cannot be used is refused before hours of baselines
        done = run.finished and (config.baseline == "none" or run.results()["single_task"] is not None
                                 or config.model.name == "single_task")
    if done:
        world.print(f"{folder} is finished; its report is {folder / 'report.html'}")
        return 0
    if config.baseline == "auto":
        check(config)
    singles = single_task_results(config, world)
    code = run_single(config, world, singles=singles, track=True)
    world.end_training()
    if not code and world.is_main_process:
        rows = [*([joined_singles(singles)] if singles else []), read_results(folder)]
        print(f"\n{build_table(rows).text()}\n\nreport: {folder / 'report.html'}")
    return code


if __name__ == "__main__":
    run_program(main)
