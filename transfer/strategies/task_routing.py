"""Task routing."""

from __future__ import annotations

from torch import nn

from transfer.strategies.filter_masks import FilterMasks
from transfer.strategies.registry import PARTITIONS


@PARTITIONS.register("task_routing")
def task_routing(model: nn.Module, *, seed: int, p: float = 0.8) -> nn.Module:
    """A task uses a random part of the filters of each shared layer, the same in the whole training.

    Strezoski et al., "Many task learning with task routing", 2019, as in Pascal (2021), sections 3.2 and 3.4.
    See :class:`transfer.strategies.filter_masks.FilterMasks`.

    Args:
        p: sharing ratio: the share of the filters of a layer that a task uses; 1 shares all of them, 0
            gives every filter to one task.

    Raises:
        UserError: p is no share, or the network has no convolutional encoder that all tasks share.
    """
    return FilterMasks(model, seed, p).into(model)
