"""Forward passes of a batch's parts, as the objective needs them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from mtl_heads.output import Output


class Part(NamedTuple):
    """A part of a batch, for gradient accumulation; a batch may be one part.

    Args:
        images: uint8 ``[B, C, H, W]``, on the device.
        targets: labels of each task.
        normalizers: counts of labels in the whole batch, over all parts and processes, of each task.
        share: of the whole batch, over all parts and processes, that this part counts for.
        last: whether it is the batch's last.
    """

    images: Tensor
    targets: dict[str, Tensor]
    normalizers: dict[str, Tensor]
    share: float
    last: bool


class Passes(Protocol):
    """What a run lends its objective.

    Attributes:
        model: the network without wrappers.
        wrapped: the network in its data-parallel wrapper, or as ``model``.
    """

    model: nn.Module
    wrapped: nn.Module

    def images(self, part: Part) -> Tensor:
        """What the network takes."""

    def losses_of(self, output: Output, part: Part, tasks: Sequence[str]) -> dict[str, Tensor]:
        """Losses of tasks, which add up over parts and processes."""

    def autocast(self) -> AbstractContextManager[Any]:
        """Mixed precision, where the run has it."""

    def exchanging(self, last: bool) -> AbstractContextManager[Any]:
        """Around a pass through ``wrapped`` whose gradients the processes exchange, or not yet."""

    def scale(self) -> Tensor | None:
        """What losses are multiplied by in float16, on the device; None otherwise."""


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """A forward that was, or will be, done in earnest elsewhere: buffers (running averages) stay as they are."""
    before = [value.clone() for value in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for value, kept in zip(model.buffers(), before, strict=True):
                value.copy_(kept)


class RandomState:
    """The global generators as they are now, so that dropout and the like can be had again.

    Args:
        device: of the network.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.cpu = torch.get_rng_state()
        self.cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def restore(self) -> None:
        """Go back to it."""
        torch.set_rng_state(self.cpu)
        if self.cuda is not None:
            torch.cuda.set_rng_state(self.cuda, self.device)
