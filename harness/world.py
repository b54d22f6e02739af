"""The processes of a run: one or many, on CPUs or GPUs, all through accelerate."""

from __future__ import annotations

import atexit
import multiprocessing
import multiprocessing.util  # noqa: F401  registers what it does at exit
import os
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState

from harness.errors import UserError
from harness.seeding import set_threads

# What launchers say about the number of processes they started: torch's and accelerate's, then MPI's.
_SIZES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "TASKLIFT_WORLD_SIZE")
_STEP = "SLURM_STEP_NUM_TASKS"  # of srun; SLURM_NTASKS is of the whole job, whatever part of it this is
T = TypeVar("T")
_CURE = "On a CPU start them with 'accelerate launch --multi_gpu --num_processes N'"


def start(*, mixed_precision: str = "no", threads: int = 0, cpu: bool = False, log_with: list[str] | None = None,
          **accelerator: Any) -> Accelerator:
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
    cpu = cpu or os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    for name in [name for name in _SIZES if os.environ.get(name) == ""]:
        del os.environ[name]  # set and empty says nothing, and libraries read it as a number
    asked = _asked_for()
    try:
        PartialState(cpu=cpu)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200].rstrip(" .")
        raise UserError(f"this process cannot join the others, {asked} in all: {reason}. {_CURE}") from error
    # torch 2.13 renamed the option, and older ones, and accelerate, know it by this name.
    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
    wrapper = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    world = Accelerator(cpu=cpu, mixed_precision=mixed_precision, kwargs_handlers=[wrapper],
                        log_with=log_with or None, **accelerator)  # an empty list makes it warn
    if world.num_processes != asked:
        raise UserError(
            f"{asked} processes were asked for, but this one sees a world of {world.num_processes}: they would "
            f"train alone and overwrite each other. {_CURE} (or set WORLD_SIZE=1 for runs that are meant to be "
            "apart)"
        )
    if world.num_processes == 1 and _several_became_one():
        raise UserError(f"accelerate launch was asked for several processes, and started one. {_CURE}")
    here = int(os.environ.get("LOCAL_WORLD_SIZE", world.num_processes))
    set_threads(threads, here)
    atexit.unregister(_end_workers)
    atexit.register(_end_workers)  # runs before the one of multiprocessing
    return world


def _end_workers() -> None:
    """End data workers that a crash leaves: they ignore the polite signal that they would be waited for after."""
    left = multiprocessing.active_children()
    if left:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's own handler makes an error of it
    for worker in left:
        worker.kill()


def _asked_for() -> int:
    """The number of processes that the launcher says there are."""
    said = [int(os.environ[name]) for name in _SIZES if os.environ.get(name, "").isdigit()]
    if "WORLD_SIZE" not in os.environ and os.environ.get(_STEP, "").isdigit():
        said.append(int(os.environ[_STEP]))
    return max([1, *said])


def _several_became_one() -> bool:
    """Whether accelerate's simple launcher dropped processes.

    Without MPI it starts one, whatever ``--num_processes`` says; the only trace of a larger number is
    the meeting point that it adds to the environment (accelerate.utils.launch).
    """
    here = os.environ
    if "ACCELERATE_MIXED_PRECISION" not in here or not {"MASTER_ADDR", "MASTER_PORT"} <= here.keys():
        return False
    if any(name in here for name in _SIZES):
        return False
    try:
        launcher = Path(f"/proc/{os.getppid()}/environ").read_bytes().split(b"\0")
    except OSError:
        return True
    return not any(entry.startswith(b"MASTER_ADDR=") for entry in launcher)  # else it is the user's own


def available_trackers(names: list[str]) -> list[str]:
    """Those of accelerate's trackers that are installed."""
    from importlib.util import find_spec

    modules = {"comet_ml": "comet_ml", "dvclive": "dvclive"}
    return [name for name in names if find_spec(modules.get(name, name)) is not None]


class SharedFlag:
    """Lets every process know of what one of them has: a number, an error, plain data.

    It travels by a gloo group of its own, so that asking costs no synchronisation of a GPU. Every
    process must make it, and call each of its methods, as often as the others do.
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

    def gather(self, value: T) -> list[T]:
        """The ``value`` of every process, by rank; every process must call it."""
        if not self._many:
            return [value]
        values: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(values, value, group=self._group)
        return values

    @contextmanager
    def together(self) -> Iterator[None]:
        """Raise an error of one process on all of them, which otherwise wait for it for ever.

        What is done inside must not wait for other processes itself.

        Raises:
            UserError: on the processes where nothing went wrong, with the message of the first where
                something did; that one's own error goes on.
        """
        error: Exception | None = None
        try:
            yield
        except Exception as caught:
            error = caught
        if not self._many:
            if error is not None:
                raise error
            return
        if self.largest(int(error is not None)):
            what = None if error is None else str(error) if isinstance(error, UserError) else repr(error)
            said = self.gather(what)
            if error is not None:
                raise error
            rank = next(rank for rank, message in enumerate(said) if message is not None)
            raise UserError(f"process {rank} stopped: {said[rank]}")


def main_first(world: Accelerator, make: Callable[[], T]) -> T:
    """What ``make`` returns on this process, called on the first process of each machine before the others.

    So one process fills a cache and the others find it. An error of one is raised on all.
    """
    flag = SharedFlag()
    for turn in (True, False):
        with flag.together():
            if world.is_local_main_process is turn:
                made = make()
    return made


def sum_over_processes(value: torch.Tensor) -> torch.Tensor:
    """``value`` summed over all processes; itself when there is only one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        value = value.clone()
        torch.distributed.all_reduce(value)
    return value


@torch.no_grad()
def broadcast(tensors: Iterable[torch.Tensor]) -> None:
    """Give all processes the values of the main one, in place."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        for tensor in tensors:
            torch.distributed.broadcast(tensor, 0)


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
