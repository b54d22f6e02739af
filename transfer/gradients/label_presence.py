"""Which tasks have labels in a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class LabelPresence:
    """Which units (tasks, or groups of them) have labels in the whole batch, on the device and on the host.

    What is on the device is sent to the host at once, and waited for when it is asked for first: once for a batch,
    however many tasks take their turn on it, and without a stop where work was given to the device in between.

    Args:
        counts: of labels in the whole batch, over all processes, ``[T]``.
    """

    def __init__(self, counts: Tensor) -> None:
        self.units = counts > 0
        self._host: list[bool] | None = None
        self._sent, self._arrival = self.units, None
        if self.units.is_cuda:
            self._sent = torch.empty(self.units.shape, dtype=torch.bool, pin_memory=True)
            self._sent.copy_(self.units, non_blocking=True)
            self._arrival = torch.cuda.Event()
            self._arrival.record()

    @property
    def host(self) -> list[bool]:
        """``[T]``; the first call waits for the device."""
        if self._host is None:
            if self._arrival is not None:
                self._arrival.synchronize()
            self._host = self._sent.tolist()
        return self._host

    def any(self, units: Sequence[int]) -> bool:
        """Whether one of these units, by position, has labels."""
        return any(self.host[unit] for unit in units)
