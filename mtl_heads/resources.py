"""What a network costs: parameters and multiply-adds."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from harness.errors import UserError
from mtl_heads.dry_run import dry_run, input_channels


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
