"""Pretrain a backbone: ``accelerate launch pretrain/main.py [--config FILE.yaml] [options]``."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:] = [str(HERE.parent), *(path for path in sys.path if Path(path or ".").resolve() != HERE)]

from harness.program import run_program  # noqa: E402


def main() -> int:
    """Read the configuration, train or go on training, and write results, weights and report."""
    from harness.config import as_dict, load
    from harness.run import Run, default_folder
    from harness.world import SharedFlag, available_trackers, start
    from pretrain.config import PretrainConfig

    config = load(PretrainConfig, prog="pretrain/main.py", base=HERE.parent / "configs" / "pretrain" / "demo.yaml")
    folder = default_folder("pretrain", config.data.name, config, config.name, config.output)

    from pretrain.engine import Pretraining
    from pretrain.outcome import warn_of_queue, write_outcome

    world = start(mixed_precision=config.mixed_precision, threads=config.threads,
                  log_with=available_trackers(config.loop.trackers), project_dir=folder)
    flag = SharedFlag()  # what goes wrong on one process is raised on all
    with flag.together():
        run = Run(folder, config, resume=config.resume, main=world.is_main_process, keep=config.loop.keep)
    with run:
        if run.finished:
            world.print(f"{folder} is finished; its report is {folder / 'report.html'}")
            return 0
        pretraining = Pretraining(config, world)
        with flag.together():
            checkpoint = run.checkpoint_to_resume(config.resume)
            if checkpoint is not None:
                pretraining.load_state_dict(checkpoint)
        if checkpoint is not None:
            world.print(f"continues {checkpoint} at step {pretraining.step}")
        with flag.together():
            run.begin(pretraining.step)
        world.init_trackers("tasklift", config={"run": str(folder), "config": str(as_dict(config))})
        warn_of_queue(pretraining)
        code = pretraining.train(run)
        if code:
            world.print(f"stopped by signal {code - 128} at step {pretraining.step}, everything is saved: the same "
                        "command goes on from here")
        with flag.together():
            if not code and world.is_main_process:
                write_outcome(pretraining, run)
        world.end_training()  # the world ends with it
    return code


if __name__ == "__main__":
    run_program(main)
