"""Binary masks of filters."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from harness.errors import UserError
from harness.seeding import numpy_generator
from mtl_heads.model import MultiTaskModel
from transfer.strategies.filter_partition import FilterPartition


def draw_masks(tasks: int, filters: int, p: float, generator: np.random.Generator) -> np.ndarray:
    """Masks ``[T, S]`` of one layer, bool (Pascal 2021, section 3.2.2).

    Every element is drawn from a Bernoulli distribution of parameter p, the sharing ratio. A filter that no
    task has then goes to one of them, uniformly (equation 3.3); and a task that has no filter, and would
    be cut off from the images, gets one, uniformly.
    """
    masks = generator.random((tasks, filters)) < p
    idle = np.flatnonzero(~masks.any(0))
    masks[generator.integers(tasks, size=len(idle)), idle] = True
    blind = np.flatnonzero(~masks.any(1))
    masks[blind, generator.integers(filters, size=len(blind))] = True
    return masks


class FilterMasks(FilterPartition):
    """A task uses some of the filters of each shared layer, and the others are zero to it.

    A filter gets no gradient from the tasks that do not use it.

    Args:
        model: the network that it is made for.
        seed: of the masks, which are the same on all processes.
        p: sharing ratio, in [0, 1].

    Attributes:
        masks: ``[T, N]``, bool: which task uses which filter; the layers' filters one after another.
        spans: of each layer, its columns of the masks.

    Raises:
        UserError: p is no share.
    """

    masks: Tensor

    def __init__(self, model: MultiTaskModel, seed: int, p: float) -> None:
        if not 0 <= p <= 1:
            raise UserError(f"partition.p is {p}, and is the share of the filters that a task uses: give a number from "
                            "0 to 1")
        super().__init__(model)
        ends = list(accumulate(layer.filters for layer in self.layers))
        self.spans = [slice(end - layer.filters, end) for end, layer in zip(ends, self.layers, strict=True)]
        drawn = [draw_masks(len(self.tasks), layer.filters, p, numpy_generator(seed, "partition", layer.name))
                 for layer in self.layers]
        self.register_buffer("masks", torch.from_numpy(np.concatenate(drawn, axis=1)))

    def modulate(self, layer: int, features: Tensor) -> Tensor:
        mask = self.masks[self.tasks.index(self.task), self.spans[layer]]
        return features * (mask if self.layers[layer].channels_last else mask[:, None, None])
