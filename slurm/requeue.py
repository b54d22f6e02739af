"""What a job does when the cluster wants it to stop: save, and start again later in the same job."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any, NoReturn

from submitit.core.utils import UncompletedJobError

from harness.errors import UserError
from harness.interrupts import ORDERS

ASK = signal.SIGUSR2
#: Share of the notice after which a run that has not reached its next step is started again without saving.
PATIENCE = 2 / 3


class Requeue:
    """Takes the cluster's signals from submitit, whose handler would act at once, on each process by itself.

    SIGUSR2 (a time limit near, or preemption) asks the training loop to stop, on all processes after the same step; the
    first process then calls :meth:`now`. A run that is elsewhere, in a long validation for example, is
    started again from its last checkpoint before the notice is over. SIGTERM, by which a cluster also
    announces that it will kill, makes the loop save and go on; so a job that is cancelled stays so.

    Use as a context manager around the program.

    Args:
        job: submitit's view of this process.
        notice: seconds between the signal and the end.
    """

    def __init__(self, job: Any, notice: float) -> None:
        self._job, self._notice = job, notice
        self._timer: threading.Timer | None = None
        self._once = threading.Lock()
        self._owner = os.getpid()
        self._submitit: Any = None

    def __enter__(self) -> Requeue:
        self._submitit = signal.signal(ASK, self._outside)
        if self._job.cluster == "slurm":
            ORDERS.save_only = frozenset({signal.SIGTERM})
        else:
            signal.signal(signal.SIGTERM, self._outside)
        ORDERS.heard, ORDERS.pending = self._heard, 0
        return self

    def __exit__(self, *exception: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def now(self) -> NoReturn:
        """Leave: the first process has the job started again, the others are done.

        Raises:
            UserError: it has reached its time limit too often.
        """
        if self._job.global_rank:
            sys.exit(0)
        with self._once:
            try:
                self._submitit(ASK, None)
            except UncompletedJobError as error:
                raise UserError(f"{str(error).rstrip('.')}. Everything is saved: the same command goes on from here "
                                "(--max_timeouts)") from error
        sys.exit(0)

    def _outside(self, number: int, _: FrameType | None) -> None:
        """A signal while no loop runs."""
        if os.getpid() != self._owner:
            return
        ORDERS.pending = number
        self._heard(number)

    def _heard(self, number: int) -> None:
        if number == ASK and self._timer is None and not self._job.global_rank:
            self._timer = threading.Timer(PATIENCE * self._notice, self._too_late)
            self._timer.daemon = True
            self._timer.start()

    def _too_late(self) -> None:
        print("the next step is too far away to save it: starts again from the last checkpoint", flush=True)
        try:
            self.now()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except UserError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            code = 2
        os._exit(code & 255)
