"""Apply an operation to some images of a batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def apply_to(
    images: Tensor, chosen: Tensor, operation: Callable[..., Tensor], *parameters: Tensor
) -> Tensor:
    """Replace the chosen images by ``operation(chosen images, chosen parameters…)``, in place.

    The choice lives on the host: which images are in a group is known without asking the device.

    Args:
        images: ``[N, …]``, overwritten.
        chosen: bool ``[N]`` on the CPU.
        operation: takes and returns ``[M, …]``; may overwrite what it is given.
        parameters: ``[N]`` each, on the CPU.

    Returns:
        ``images``.
    """
    rows = chosen.nonzero().flatten()
    if not len(rows):
        return images
    drawn = [parameter[rows].to(images.device, non_blocking=True) for parameter in parameters]
    rows = rows.to(images.device, non_blocking=True)
    return images.index_copy_(0, rows, operation(torch.index_select(images, 0, rows), *drawn))
