"""The demo sweep: single-task and multi-task networks on a few labelled scenes, from random weights and pretrained."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from accelerate import Accelerator

from harness.config import load
from transfer.baselines import single_task_results
from transfer.compare import write_comparison
from transfer.config import ModelConfig, TransferConfig
from transfer.results import joined_singles, read_results
from transfer.single_run import run_single


def run_demo(config_path: Path, world: Accelerator, outputs: Path = Path("outputs")) -> int:
    """Run what the configuration says from each kind of weights, and print one table.

    Returns:
        0 when done, or 128 + the signal that asked to stop.
    """
    starts: list[Path | None] = [None]
    newest = newest_pretraining(outputs, load(TransferConfig, [], base=config_path).model.common)
    if newest is None:
        world.print(f"no finished pretraining on scenes under {outputs}/: only random weights; run 'accelerate launch "
                    "pretrain/main.py' first to compare with it")
    else:
        starts.append(newest)
    rows = []
    for weights in starts:
        config = load(TransferConfig, [f"--model.weights={weights}"] if weights else [], base=config_path)
        config.output = str(outputs / "transfer-demo" / (f"from-{weights.name}" if weights else "random"))
        world.print(f"\nfrom {weights or 'random weights'}")
        singles = single_task_results(config, world)
        code = run_single(config, world, "multi-task", singles)
        if code:
            return code
        rows += [joined_singles(singles), read_results(config.output)]
    if world.is_main_process:
        report = outputs / "transfer-demo" / "report.html"
        table = write_comparison(report, rows, "Demo: does pretraining lift several tasks at once?")
        print(f"\n{table.text()}\n\nreport: {report}")
    return 0


def newest_pretraining(outputs: Path, model: ModelConfig) -> Path | None:
    """Folder of the pretraining run on scenes, with this backbone, that finished last."""
    finished = sorted(outputs.glob("*/results.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in finished:
        try:
            results = json.loads(path.read_text())
            trained = yaml.safe_load(path.with_name("config.yaml").read_text())["model"]
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
            continue
        same = trained.get("backbone") == model.backbone and trained.get("backbone_options") == model.backbone_options
        if results.get("kind") == "pretrain" and results.get("data") == "scenes" and same:
            return path.parent
    return None
