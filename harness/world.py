"""The processes of a run: one or many, on CPUs or GPUs, all through accelerate."""

from __future__ import annotations

import os
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs

from harness.errors import UserError
from harness.seeding import set_threads

# What launchers say about the number of processes they started.
_SIZES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "TASKLIFT_WORLD_SIZE")


def start(*, mixed_precision: str = "no", threads: int = 0, cpu: bool = False, **accelerator: Any) -> Accelerator:
    """Join the world the launcher made, and set the threads of this process.

    Buffers are not broadcast by the data-parallel wrapper: queues are equal on all processes by
    construction, and statistics of batch norm are saved from the main one.

    Raises:
        UserError: the launcher started several processes and they do not see each other, or the
            machine cannot do ``mixed_precision``.
    """
    cpu = cpu or not torch.cuda.is_available()
    if mixed_precision == "fp16" and cpu:
        raise UserError("mixed_precision fp16 needs a GPU: use bf16 or no on a CPU")
    asked = max([int(os.environ.get(name, 1) or 1) for name in _SIZES] + [1])
    wrapper = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    world = Accelerator(cpu=cpu, mixed_precision=mixed_precision, kwargs_handlers=[wrapper], **accelerator)
    if world.num_processes != asked:
        raise UserError(
            f"{asked} processes were asked for, but this one sees a world of {world.num_processes}: they would "
            "train alone and overwrite each other. On a CPU start them with "
            "'accelerate launch --multi_gpu --num_processes N'"
        )
    here = int(os.environ.get("LOCAL_WORLD_SIZE", world.num_processes))
    set_threads(threads, here)
    return world


def available_trackers(names: list[str]) -> list[str]:
    """Those of accelerate's trackers that are installed."""
    from importlib.util import find_spec

    modules = {"comet_ml": "comet_ml", "dvclive": "dvclive"}
    return [name for name in names if find_spec(modules.get(name, name)) is not None]


class SharedFlag:
    """Lets every process know of a number that one of them has (the largest wins).

    It travels by a gloo group of its own, so that asking costs no synchronisation of a GPU.
    """

    def __init__(self) -> None:
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        self._many = distributed and torch.distributed.get_world_size() > 1
        self._group = torch.distributed.new_group(backend="gloo") if self._many else None

    def largest(self, value: int) -> int:
        """The largest ``value`` over all processes; every process must call it."""
        if not self._many:
            return value
        flag = torch.tensor([value], dtype=torch.int64)
        torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX, group=self._group)
        return int(flag)


def sum_over_processes(value: torch.Tensor) -> torch.Tensor:
    """``value`` summed over all processes; itself when there is only one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        value = value.clone()
        torch.distributed.all_reduce(value)
    return value


def versions() -> dict[str, str]:
    """Versions that results depend on, and the hardware."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for package in ("tasklift", "torch", "torchvision", "timm", "accelerate", "kornia", "torchmetrics", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    found["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    return found


def _processor() -> str:
    import platform

    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
