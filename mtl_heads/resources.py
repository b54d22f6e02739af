"""What a network costs: parameters and multiply-adds, also relative to one network per task."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from harness.errors import UserError
from mtl_heads.dry_run import dry_run, input_channels
from mtl_heads.tasks import Tasks


class Resources(NamedTuple):
    """Cost of a network, or of several together.

    Args:
        parameters: number of parameters.
        multiply_adds: of predicting all tasks for one image.
    """

    parameters: int
    multiply_adds: int

    def change(self, reference: Resources) -> tuple[float, float]:
        """How much more than ``reference`` this costs, in percent: parameters, multiply-adds."""
        return tuple(100 * (own / other - 1) for own, other in zip(self, reference, strict=True))


def parameters(model: nn.Module) -> int:
    """Number of parameters, frozen ones included, shared ones once."""
    return sum(value.numel() for value in model.parameters())


def multiply_adds(model: nn.Module, image_size: int | tuple[int, int]) -> int:
    """Multiply-adds of predicting all tasks for one image, in evaluation mode.

    Half of what torch's counter calls FLOPs; papers on multi-task networks call this number FLOPs.
    Nothing is computed and the model's state and modes stay as they are: the count does not depend
    on device, precision or compilation.

    Args:
        model: called as ``model(images)``.
        image_size: height and width in pixels, or one number for both.

    Raises:
        UserError: the size is not positive.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if height < 1 or width < 1:
        raise UserError(f"image size {height}x{width} has a side that is not positive: give pixels")
    counters: list[FlopCounterMode] = []

    def count() -> FlopCounterMode:
        counters.append(FlopCounterMode(display=False))
        return counters[-1]

    with torch.no_grad():
        dry_run(model, (1, input_channels(model), height, width), count)
    return counters[-1].get_total_flops() // 2


def resources(model: nn.Module, image_size: int | tuple[int, int]) -> Resources:
    """Parameters and multiply-adds of a network; see :func:`multiply_adds`."""
    return Resources(parameters(model), multiply_adds(model, image_size))


def single_task_resources(
    make: Callable[[Tasks], nn.Module], tasks: Tasks, image_size: int | tuple[int, int]
) -> Resources:
    """Cost of one network per task together: what tables of multi-task networks are relative to.

    Auxiliary tasks have no network, since they only help others.

    Args:
        make: makes the network of a set of one task.
        tasks: of the multi-task network.
        image_size: as for :func:`multiply_adds`.
    """
    known: dict[tuple[str, int], Resources] = {}  # networks of equal outputs cost the same
    total = Resources(0, 0)
    for kind in ("dense", "image"):
        for task, channels in getattr(tasks, kind).items():
            if (kind, channels) not in known:
                one = {"dense": {}, "image": {}, "auxiliary": {}} | {kind: {task: channels}}
                known[kind, channels] = resources(make(Tasks(**one)), image_size)
            total = Resources(*(a + b for a, b in zip(total, known[kind, channels], strict=True)))
    return total
