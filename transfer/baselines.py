"""The single-task networks that Δ_MTL is measured against: trained once, cached, reused."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from harness.config import Selection, digest, identity, option_defaults
from harness.errors import UserError
from harness.files import locked
from transfer.classifiers.initialise import of_single_task
from transfer.config import TransferConfig
from transfer.network import build_network, fits_head
from transfer.results import read_results
from transfer.single_run import inputs, run_single
from transfer.strategies.base import BalanceConfig
from transfer.strategies.groups import ScheduleConfig

CACHE = Path("outputs") / "single_task"
ONE_SCALE = "deeplab"  # head that features of one scale are enough for


def single_task_results(config: TransferConfig, world: Accelerator) -> dict[str, dict[str, Any]] | None:
    """Results of one single-task run for each main task, as ``--baseline`` says.

    ``auto`` trains those that are not in the cache yet, from the same weights, on the same data and
    with the same recipe as ``config``; a lock makes a second process wait for the first.

    Returns:
        Results by task, or None with ``--baseline none`` and for single-task runs themselves.

    Raises:
        UserError: named runs that are missing, unfinished or of other tasks.
    """
    if config.baseline == "none" or config.model.name == "single_task":
        return None
    if config.baseline != "auto":
        return _named(config)
    if _falls_back(config):
        world.print(f"single-task networks have head '{ONE_SCALE}': '{_own_head(config)}', which '{config.model.name}' "
                    "is compared with elsewhere, needs features of several scales (--baseline_head names another)")
    return {task: read_results(single_task_folder(config, task, world)) for task in config.tasks}


def single_task_folder(config: TransferConfig, task: str, world: Accelerator) -> Path:
    """The cached run of one task's network, trained first where it is not there yet."""
    single = single_task_config(config, task)
    _check_head(config, single)
    folder = CACHE / f"{config.data.name}-{task}-{baseline_key(single, world)}"
    single.output = str(folder)
    if not (folder / "results.json").exists():
        world.print(f"single-task network for {task}: {folder}")
    lock = locked(folder.parent / f".{folder.name}.lock")
    if world.is_main_process:
        lock.__enter__()
    try:
        world.wait_for_everyone()
        code = 0 if (folder / "results.json").exists() else run_single(single, world, description=task)
    finally:
        if world.is_main_process:
            lock.__exit__(None, None, None)
    if code:
        raise SystemExit(code)
    return folder


def single_task_config(config: TransferConfig, task: str) -> TransferConfig:
    """``config`` with one task, its network's counterpart of one task, and otherwise the same."""
    registry = config.model.registry
    options = _counterpart(config)
    wanted = config.baseline_head or (ONE_SCALE if _falls_back(config) else options["head"])
    if wanted != options["head"]:
        options |= {"head": wanted, "head_options": None}
    common = dataclasses.replace(config.model.common, from_single_task="auto")  # of no meaning here
    # A learned or adaptive balance has nothing to balance here, nor a partition to divide.
    return dataclasses.replace(
        config, name=None, output=None, resume="auto", tasks=[task], auxiliary=[], baseline="none",
        baseline_head=None,
        task_options={task: config.task_options[task]} if task in config.task_options else {},
        classifier=of_single_task(config, task),
        model=Selection("single_task", options, common, registry),
        balance=Selection("equal", {}, BalanceConfig(), config.balance.registry),
        schedule=Selection("shared", {}, ScheduleConfig(), config.schedule.registry),
        partition=Selection("full", {}, None, config.partition.registry),
    )


def _counterpart(config: TransferConfig) -> dict[str, Any]:
    """Options of the single-task networks that the architecture is compared with."""
    registry = config.model.registry
    return {**option_defaults(registry.get("single_task")),
            **registry.get(config.model.name).single_task_options(config.model.options)}


def _own_head(config: TransferConfig) -> str:
    """The architecture's choice of their head."""
    return _counterpart(config)["head"]


def _falls_back(config: TransferConfig) -> bool:
    """Whether the head that nobody chose reads several scales, and there is one."""
    chosen = config.baseline_head is not None or "head" in config.model.options
    return not chosen and not fits_head(config, _own_head(config))


def single_task_head(config: TransferConfig) -> str:
    """Head of the dense tasks' single-task networks."""
    return single_task_config(config, config.tasks[0]).model.options["head"]


def _check_head(config: TransferConfig, single: TransferConfig) -> None:
    """Refuse a head that does not fit, of which the user may have said nothing."""
    head = single.model.options["head"]
    if head == config.model.options.get("head"):
        return
    (task,), data = single.tasks, single.data.build()
    try:
        build_network(single, data.choose([task], single.task_options))
    except UserError as error:
        raise UserError(f"single-task network for {task}, with head '{head}': {error}; --baseline_head names another, "
                        "--baseline none trains none") from error


def baseline_key(config: TransferConfig, world: Accelerator) -> str:
    """A digest of everything that the result depends on: recipe, data, weights, plugins, world, versions."""
    plugins = {path: hashlib.blake2b(Path(path).read_bytes()).hexdigest() for path in config.plugin}
    return digest({
        "config": identity(config), **inputs(config), "plugins": sorted(plugins.values()),
        "processes": world.num_processes, "threads": torch.get_num_threads(), "device": world.device.type,
        "torch": torch.__version__,
    })


def _named(config: TransferConfig) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for folder in config.baseline.split(","):
        results = read_results(folder.strip())
        if results["architecture"] != "single_task":
            raise UserError(f"--baseline: {folder} is a run of '{results['architecture']}': give single-task runs")
        found.update({task: results for task in results["metrics"]})
    lacking = [task for task in config.tasks if task not in found]
    if lacking:
        raise UserError(f"--baseline: no run of {', '.join(lacking)} among {config.baseline}: give one for each task")
    return {task: found[task] for task in config.tasks}
