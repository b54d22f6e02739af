"""Everything shared."""

from __future__ import annotations

from torch import nn

from transfer.strategies.registry import PARTITIONS


@PARTITIONS.register("full")
def full(model: nn.Module, *, seed: int) -> nn.Module:
    """Every task uses every parameter that its architecture gives it: the model as it is."""
    return model
