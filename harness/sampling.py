"""Which samples make up which batch: a function of seed and step alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from harness.errors import UserError
from harness.seeding import numpy_generator

Order = Callable[[int, int], np.ndarray]
"""(seed, epoch) to the numbers of the samples of that epoch, in their order: int64, as many in every epoch."""


def shuffled(length: int, seed: int, epoch: int) -> np.ndarray:
    """The order of an epoch over a whole data set: a permutation of ``length`` numbers, int64."""
    return numpy_generator(seed, "order", epoch).permutation(length)


class Batches:
    """Batch sampler over all epochs of a run, for a ``DataLoader``'s ``batch_sampler``.

    Every epoch has an order of its own, a function of (seed, epoch) alone, and is cut into batches of
    ``batch_size`` over all processes; each process takes its contiguous share of every batch. So the
    batches are the same for any number of processes, a resumed run starts at any step, and workers
    read on across the end of an epoch.

    Args:
        length: samples in an epoch.
        batch_size: over all processes.
        epochs: how many.
        seed: of the permutations.
        rank: of this process.
        world: number of processes.
        drop_last: leave out an epoch's last batch if it is not full. Otherwise it is trimmed to a
            multiple of ``world``, and left out if that gives a process fewer than ``least`` samples.
        least: smallest share of a process in a partial batch (batch norm needs two).
        order: which samples an epoch has, in which order; by default a permutation of the ``length``.
        uneven: keep every sample of the last batch, though some processes' shares are then one smaller
            than others', or empty and their last batch missing. For reading alone: a training step
            needs equal shares.

    Raises:
        UserError: the batch is smaller than the world, or there is not one batch in an epoch.
    """

    def __init__(self, length: int, batch_size: int, epochs: int, *, seed: int, rank: int = 0, world: int = 1,
                 drop_last: bool = False, least: int = 2, order: Order | None = None,
                 uneven: bool = False) -> None:
        if batch_size < world or batch_size % world:
            raise UserError(f"batch_size {batch_size} is over all processes: make it a multiple of the {world} "
                            "there are")
        self.length, self.batch_size, self.epochs, self.seed = length, batch_size, epochs, seed
        self.rank, self.world = rank, world
        self.start = 0
        self.order = order or partial(shuffled, length)
        share = length % batch_size // world
        self.last = 0 if drop_last or share < least else share * world
        if uneven and not drop_last:
            self.last = length % batch_size
        self.steps_per_epoch = length // batch_size + bool(self.last)
        if not self.steps_per_epoch:
            raise UserError(f"{length} samples do not fill a batch of {batch_size}: set --batch_size to at most "
                            f"{max(world, length // world * world)}")

    @property
    def images_per_epoch(self) -> int:
        """Samples seen in an epoch, over all processes."""
        return self.length // self.batch_size * self.batch_size + self.last

    def images_before(self, step: int) -> int:
        """Samples seen, over all processes, before ``step`` (counted from 0 over the run)."""
        epoch, within = divmod(step, self.steps_per_epoch)
        return epoch * self.images_per_epoch + within * self.batch_size

    def __len__(self) -> int:
        return self.epochs * self.steps_per_epoch - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Lists of (epoch, index) for this process, from step ``start`` on."""
        first, skip = divmod(self.start, self.steps_per_epoch)
        for epoch in range(first, self.epochs):
            order = self.order(self.seed, epoch)
            if len(order) != self.length:
                raise ValueError(f"the order of epoch {epoch} has {len(order)} samples, not {self.length}")
            for step in range(skip, self.steps_per_epoch):
                batch = order[step * self.batch_size : (step + 1) * self.batch_size]
                if len(batch) < self.batch_size:
                    batch = batch[: self.last]
                mine = batch[len(batch) * self.rank // self.world : len(batch) * (self.rank + 1) // self.world]
                if len(mine):
                    yield [(epoch, int(index)) for index in mine]
            skip = 0
