"""Being asked to stop: finish the step, save, leave."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from types import FrameType

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2")
                 if hasattr(signal, name))


@dataclass
class Orders:
    """What a launcher of this process means by signals, for all its loops.

    Args:
        save_only: signals after which a run saves and goes on.
        pending: a signal that came before the loop, which stops after its first step.
    """

    save_only: frozenset[int] = frozenset()
    pending: int = 0


ORDERS = Orders()


class Interrupts:
    """Turns the first SIGTERM, SIGINT, SIGUSR1 or SIGUSR2 into a flag; the second acts as usual.

    Use as a context manager around the training loop; ``received`` is the signal's number or 0.
    """

    def __init__(self) -> None:
        self.received = 0
        self._save = False
        self._saved: dict[int, object] = {}
        self._owner = os.getpid()

    def __enter__(self) -> Interrupts:
        for number in _SIGNALS:
            self._saved[number] = signal.signal(number, self._handle)
        self.received = self.received or ORDERS.pending
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._saved.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def asked(self) -> int:
        """The signal that asks to stop; else 1, once, if one asked to save; else 0."""
        save, self._save = self._save, False
        return self.received or int(save)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:  # a worker that was forked: its parent decides
            return
        if number in ORDERS.save_only:
            self._save = True
            return
        self.received = number
        signal.signal(number, self._saved[number] or signal.SIG_DFL)

    @property
    def exit_code(self) -> int:
        """What a shell reports for a program ended by this signal."""
        return 128 + self.received


def quiet_worker(_: int) -> None:
    """``worker_init_fn`` of every loader: one thread, and signals are the parent's business."""
    import torch

    torch.set_num_threads(1)
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
