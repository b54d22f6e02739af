"""Starting weights from trained single-task networks, for architectures that have a column per task."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from harness.checkpoint import load_file
from harness.errors import UserError
from transfer.config import TransferConfig
from transfer.results import read_results, weights_of

_OPTIONAL = ".num_batches_tracked"


def single_task_digests(config: TransferConfig) -> Any:
    """What the starting weights add to the identity of a run: nothing, "auto", or a digest for each task.

    Raises:
        UserError: runs are named and the architecture does not start from any, or they do not fit.
    """
    from pretrain.checkpoints import content_digest

    given = config.model.common.from_single_task
    if not _wanted(config):
        if given not in ("auto", "none"):
            raise UserError(f"model.from_single_task: architecture '{config.model.name}' does not start from "
                            "single-task networks: leave it out")
        return None
    if given in ("auto", "none"):
        return given
    return {task: content_digest(path) for task, path in _named(config).items()}


def single_task_checkpoints(config: TransferConfig, world: Accelerator) -> dict[str, Path]:
    """Checkpoints of the single-task networks that a run starts from, by task; empty when from none.

    Those that the configuration names, or those of :func:`transfer.baselines.single_task_folder`, which
    trains what is not there yet.

    Raises:
        UserError: a named run is missing, unfinished, of several tasks, or there is none for a task.
    """
    from transfer.baselines import single_task_folder

    given = config.model.common.from_single_task
    if not _wanted(config) or given == "none":
        return {}
    if given != "auto":
        return _named(config)
    config = dataclasses.replace(config, baseline_head=None)  # a column takes the weights of the same head only
    return {task: weights_of(single_task_folder(config, task, world)) for task in [*config.tasks, *config.auxiliary]}


def load_single_tasks(model: nn.Module, checkpoints: Mapping[str, Path]) -> None:
    """Load single-task networks into the columns of a multi-task one.

    Raises:
        UserError: a network does not fit its column; the columns before it are loaded by then.
    """
    for task, path in checkpoints.items():
        load_single_task(model, task, load_file(path)["model"], str(path))


def load_single_task(model: nn.Module, task: str, state: Mapping[str, Tensor], source: str) -> None:
    """Load the state dict of one single-task network; the column is unchanged unless everything fits.

    Args:
        model: the multi-task network.
        task: whose column.
        state: of an architecture ``single_task`` with that task.
        source: what messages call it.

    Raises:
        UserError: keys or shapes do not fit.
    """
    prefixes = model.single_task_prefixes(task)
    own = model.state_dict()
    wanted = {name for name in own if name.startswith(tuple(prefixes.values()))}
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        name = next((ours + key[len(theirs):] for theirs, ours in prefixes.items() if key.startswith(theirs)), None)
        if name not in wanted:
            raise UserError(f"{source}: '{key}' is not in the column of task '{task}': give a single-task run of the "
                            "same backbone, neck and head")
        if value.shape != own[name].shape:
            raise UserError(f"{source}: '{key}' has shape {tuple(value.shape)}, the column of task '{task}' has "
                            f"{tuple(own[name].shape)}: give a single-task run of the same backbone, neck and head")
        found[name] = value
    missing = sorted(name for name in wanted - set(found) if not name.endswith(_OPTIONAL))
    if missing:
        raise UserError(f"{source}: lacks {len(missing)} tensors of the column of task '{task}' (first "
                        f"'{missing[0]}'): give a single-task run of the same backbone, neck and head")
    with torch.no_grad():
        for name, value in found.items():
            own[name].copy_(value)


def _wanted(config: TransferConfig) -> bool:
    architecture = config.model.registry.get(config.model.name)
    return getattr(architecture, "starts_from_single_task", False)


def _named(config: TransferConfig) -> dict[str, Path]:
    given = config.model.common.from_single_task
    folders = [part.strip() for part in given.split(",")] if isinstance(given, str) else given
    found: dict[str, Path] = {}
    for folder in folders:
        results = read_results(folder)
        if results["architecture"] != "single_task":
            raise UserError(f"model.from_single_task: {folder} is a run of '{results['architecture']}': give "
                            "single-task runs")
        found |= {task: weights_of(results["folder"]) for task in results["metrics"]}
    tasks = [*config.tasks, *config.auxiliary]
    lacking = [task for task in tasks if task not in found]
    if lacking:
        raise UserError(f"model.from_single_task: no run of {', '.join(lacking)} among {', '.join(folders) or 'none'}: "
                        "give one for each task, or auto")
    return {task: found[task] for task in tasks}
