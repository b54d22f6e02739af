"""``results.json`` of transfer runs."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from harness.config import digest, identity
from harness.errors import UserError
from harness.world import versions
from mtl_heads.resources import resources
from transfer.delta import delta_mtl
from transfer.engine import Transfer
from transfer.frozen import backbone_digest


def collect_results(transfer: Transfer, name: str, metrics: dict[str, dict[str, float]],
                    singles: dict[str, dict[str, Any]] | None, step_seconds: float) -> dict[str, Any]:
    """Everything that ``results.json`` states about a finished run."""
    from transfer.baselines import single_task_head  # these read results of single-task runs
    from transfer.relative import relative_resources

    config, tasks = transfer.config, transfer.tasks
    primary = {task: tasks[task].primary for task in config.tasks}
    higher = {task: bool(tasks[task].higher_is_better) for task in config.tasks}
    image = transfer.train_split[0]["image"]
    size = config.evaluation.size or image.shape[:2]
    size = size if isinstance(size, int) else tuple(size[:2])
    cost = resources(transfer.model, size)
    results = {
        "name": name, "dataset": config.data.name, "architecture": config.model.name,
        "backbone": transfer.network.backbone, "head": config.model.options.get("head"),
        "weights": config.model.common.weights,
        "strategy": {"balance": config.balance.name, "schedule": config.schedule.name,
                     "partition": config.partition.name},
        "seed": config.seed, "split": config.evaluation.split, "metrics": metrics, "primary": primary,
        "labels": {name: {"task": label.task, "classes": list(label.classes), "parents": dict(label.parents)}
                   for name, label in transfer.data.labels.items() if name in tasks},
        "higher_is_better": higher, "single_task": None, "delta_mtl": None,
        "single_task_head": None if config.model.name == "single_task" else single_task_head(config),
        "parameters": cost.parameters, "macs": cost.multiply_adds,
        "relative": relative_resources(config, transfer.model.task_set, transfer.network.backbone, cost, size),
        "train_seconds": transfer.seconds, "step_seconds": step_seconds, "threads": torch.get_num_threads(),
        "processes": transfer.world.num_processes, "versions": versions(),
        "recipe": recipe_digest(config), "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    return compare_with(results, singles) if singles else results


def recipe_digest(config: Any) -> str:
    """Stands for all of a configuration that changes results, but for the seed."""
    recipe = identity(config)
    recipe.pop("seed")
    return digest(recipe)


def compare_with(results: dict[str, Any], singles: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """``results`` with the figures of single-task networks, and Δ_MTL against them.

    Raises:
        UserError: a single-task network was not measured by the metric that counts.
    """
    metrics, primary = results["metrics"], results["primary"]
    for task in metrics:
        if primary[task] not in singles[task]["metrics"].get(task, {}):
            raise UserError(f"the single-task network of {task} in {singles[task].get('folder', 'its folder')} was not "
                            f"measured by {primary[task]}, perhaps by another version: remove that folder, and it is "
                            "trained again")
    single = {task: singles[task]["metrics"][task] for task in metrics}
    values, references = ({task: math.nan if source[task][primary[task]] is None else source[task][primary[task]]
                           for task in metrics} for source in (metrics, single))
    delta = delta_mtl(values, references, results["higher_is_better"])
    heads = dict.fromkeys(singles[task].get("head") for task in metrics if singles[task].get("head"))
    known = {"single_task_head": ", ".join(heads)} if heads else {}
    return {**results, "single_task": single, "delta_mtl": delta, **known}


def run_folder(name: str | Path) -> Path:
    """The folder of a run that is named by its path, or by its name under ``outputs/``."""
    folder = Path(name)
    return Path("outputs") / name if not folder.exists() and (Path("outputs") / name).exists() else folder


def weights_of(folder: str | Path) -> Path:
    """The checkpoint whose figures are a finished run's results.

    Raises:
        UserError: it is not there.
    """
    folder = Path(folder)
    try:
        selected = yaml.safe_load((folder / "config.yaml").read_text())["evaluation"]["select"]
    except (OSError, KeyError, TypeError, yaml.YAMLError):
        selected = "last"
    names = ["best.pt", "last.pt"] if selected == "best" else ["last.pt"]
    for path in (folder / "checkpoints" / name for name in names):
        if path.is_file():
            return path
    raise UserError(f"{folder} has no checkpoints/last.pt: give the folder of a finished run")


def read_results(folder: str | Path) -> dict[str, Any]:
    """``results.json`` of a transfer run.

    Raises:
        UserError: the run is missing, not finished, or not a transfer run.
    """
    path = Path(folder)
    path = path / "results.json" if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"{folder} has no results.json: give the folder of a finished transfer run")
    try:
        results = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON ({error})") from error
    if "architecture" not in results or "metrics" not in results:
        raise UserError(f"{path} is not of a transfer run: give the folder of one")
    return {**results, "folder": str(path.parent), "weights_digest": backbone_digest(path.parent)}


def with_singles(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Results with rows for the single-task networks that they were compared with, unless some are there already.

    Their costs are what the results' own and their ratio say.
    """
    if any(result["architecture"] == "single_task" for result in results):
        return results
    rows: dict[str, dict[str, Any]] = {}
    for result in (result for result in results if result.get("single_task")):
        relative = result.get("relative") or {}
        costs = {key: round(result[key] / (1 + relative[key] / 100)) if key in relative else None
                 for key in ("parameters", "macs")}
        same = ("dataset", "backbone", "weights", "seed", "primary", "higher_is_better", "single_task")
        kept = {key: result.get(key) for key in same}
        rows.setdefault(digest(kept), {
            **kept, **costs, "name": "single-task networks", "architecture": "single_task",
            "metrics": result["single_task"], "delta_mtl": 0.0, "relative": dict.fromkeys(relative, 0.0) or None,
            "strategy": {"balance": "equal", "schedule": "shared", "partition": "full"}, "train_seconds": None})
    return [*rows.values(), *results]


def joined_singles(singles: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The single-task networks as one row of a table: their figures together, their costs summed."""
    first = next(iter(singles.values()))
    costs = {key: sum(result[key] for result in singles.values())
             for key in ("parameters", "macs", "train_seconds", "step_seconds")}
    parts = {key: {task: result[key][task] for task, result in singles.items()}
             for key in ("metrics", "primary", "higher_is_better")}
    joined = {**first, **parts, **costs, "name": "single-task networks", "single_task": parts["metrics"],
              "delta_mtl": 0.0, "relative": {"parameters": 0.0, "macs": 0.0}}
    joined.pop("folder", None)  # it is no run of its own
    return joined
