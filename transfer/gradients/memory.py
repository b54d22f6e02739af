"""Whether there is room."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor

#: Share of the free memory that gradients may take.
SHARE = 0.25


def fits(parameters: Sequence[Tensor], tasks: int) -> bool:
    """Whether the gradients of so many tasks for these parameters are a small part of the free memory."""
    if not parameters:
        return True
    wanted = tasks * sum(value.numel() * value.element_size() for value in parameters)
    device = parameters[0].device
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    elif hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    else:
        return True
    return wanted <= SHARE * free
