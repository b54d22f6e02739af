"""Batches of a second split beside those of training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from harness.sampling import Batches


class NumberedBatches:
    """The batches of a split by number, so that a resumed run asks for the same ones.

    Asking for one after another reads on; anything else starts again there.

    Args:
        samples: augmented; an index is ``(epoch, i)``.
        batches: which of them make up which batch.
        options: of the ``DataLoader``.
    """

    def __init__(self, samples: Dataset, batches: Batches, options: Callable[[], dict[str, Any]]) -> None:
        self.samples, self.batches, self.options = samples, batches, options
        self._next = -1
        self._data: Iterator[dict[str, Any]] = iter(())

    def __call__(self, number: int) -> dict[str, Any]:
        """A collated batch."""
        if number != self._next:
            self.batches.start = number
            # A generator of its own: the global one is what dropout draws from.
            loader = DataLoader(self.samples, batch_sampler=self.batches, generator=torch.Generator(),
                                **self.options())
            self._data = iter(loader)
        self._next = number + 1
        return next(self._data)

    def close(self) -> None:
        """End its workers, which a program that ends would otherwise wait for."""
        self._next, self._data = -1, iter(())
