"""One transfer run from its configuration to its results and report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from accelerate import Accelerator

from harness.config import as_dict
from harness.run import Run
from transfer.config import TransferConfig


def inputs(config: TransferConfig) -> dict[str, Any]:
    """Digests of what a configuration only names: the content of the weights, and the data."""
    from pretrain.checkpoints import content_digest
    from transfer.classifiers.initialise import table_digests
    from transfer.single_task_start import single_task_digests

    weights = config.model.common.weights
    found = {"weights": content_digest(weights) if weights else None, "data": config.data.build().fingerprint()}
    starts, tables = single_task_digests(config), table_digests(config)
    return found | ({"from_single_task": starts} if starts else {}) | ({"classifier": tables} if tables else {})


def run_single(config: TransferConfig, world: Accelerator, description: str = "transfer",
               singles: dict[str, dict[str, Any]] | None = None, track: bool = False) -> int:
    """Train (or go on training) in ``config.output``, evaluate, and write results and report.

    A finished run is left as it is, but for the comparison with ``singles`` where it has none yet.

    Args:
        config: with ``output`` set.
        world: accelerate's view of the processes.
        description: stands before the progress bar.
        singles: results of the single-task networks by task, for Δ_MTL.
        track: send what is logged to the trackers too.

    Returns:
        0 when done, or 128 + the signal that asked to stop.
    """
    from transfer.backbone_export import write_backbone
    from transfer.classifiers.initialise import begin_classifiers
    from transfer.engine import Transfer
    from transfer.report import write_transfer_report
    from transfer.report_panels import draw_panels
    from transfer.results import collect_results, compare_with
    from transfer.single_task_start import load_single_tasks, single_task_checkpoints

    folder = Path(config.output)
    with Run(folder, config, resume=config.resume, main=world.is_main_process, keep=config.loop.keep,
             extra=inputs(config)) as run:
        world.wait_for_everyone()
        if run.finished:
            if world.is_main_process and singles and run.results()["single_task"] is None:
                results = compare_with(run.results(), singles)
                write_transfer_report(run, results, singles)
                run.finish(results)
            world.print(f"{folder} is finished; its report is {folder / 'report.html'}")
            return 0
        checkpoint = run.checkpoint_to_resume(config.resume)
        starts = single_task_checkpoints(config, world) if checkpoint is None else {}
        transfer = Transfer(config, world)
        if checkpoint is not None:
            transfer.load_state_dict(checkpoint)
            world.print(f"continues {checkpoint} at step {transfer.step}")
        else:
            begin_classifiers(transfer, folder)
        for remark in transfer.remarks():
            world.print(remark)
        if starts:
            load_single_tasks(transfer.model, starts)
            world.print(f"starts from {', '.join(str(path.parents[1]) for path in starts.values())}")
        run.begin(transfer.step)
        if track:
            world.init_trackers("tasklift", config={"run": str(folder), "config": str(as_dict(config))})
        code = transfer.train(run, description)
        if code:
            world.print(f"stopped by signal {code - 128} at step {transfer.step}, everything is saved: the same "
                        "command goes on from here")
            return code
        if config.evaluation.select == "best" and run.checkpoints.best.exists():
            step, seconds = transfer.step, transfer.seconds
            transfer.load_state_dict(run.checkpoints.best)
            transfer.step, transfer.seconds = step, seconds
        metrics = transfer.evaluate(config.evaluation.split, bar=True)
        if world.is_main_process:
            results = collect_results(transfer, folder.name, metrics, singles,
                                      transfer.seconds / max(1, transfer.step))
            write_backbone(transfer, folder / "checkpoints" / "backbone.safetensors")
            draw_panels(transfer, run.figures / "panels.png")
            write_transfer_report(run, results, singles)
            run.finish(results)
        world.wait_for_everyone()
    return 0
