"""What a job does when the cluster wants it to stop: save, and start again later in the same job."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
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
    first process then calls :meth:`now`. A run that is elsewhere, in a long validation for example, or that waits for
    a process that hangs, is started again from its last checkpoint before the notice is over. SIGTERM, by which a
    cluster also announces that it will kill, makes the loop save and go on; so a job that is cancelled stays so.

    Use as a context manager around the program.

    Args:
        job: submitit's view of this process.
        notice: seconds between the signal and the end.
    """

    def __init__(self, job: Any, notice: float) -> None:
        self._job, self._notice = job, notice
        self._timer: threading.Timer | None = None
        self._once = threading.Lock()
        self._left = self._over = False
        self._owner = os.getpid()
        self._submitit: Any = None
        self._pipe: tuple[int, int] | None = None

    def __enter__(self) -> Requeue:
        self._submitit = signal.signal(ASK, self._outside)
        if self._job.cluster == "slurm":
            ORDERS.save_only = frozenset({signal.SIGTERM})
        else:
            signal.signal(signal.SIGTERM, self._outside)
        ORDERS.pending = 0
        if not self._job.global_rank:
            self._listen()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        if self._pipe is not None:
            signal.set_wakeup_fd(-1)
            os.close(self._pipe[1])

    def now(self) -> NoReturn:
        """Leave: the first process has the job started again, the others are done.

        Raises:
            UserError: it has reached its time limit too often.
        """
        if self._job.global_rank:
            sys.exit(0)
        with self._once:
            if self._left:  # by another thread, which ends the process
                threading.Event().wait()
            self._left = True
        try:
            self._submitit(ASK, None)
        except UncompletedJobError as error:
            raise UserError(f"{str(error).rstrip('.')}. Everything is saved: the same command goes on from here "
                            "(--max_timeouts)") from error
        sys.exit(0)

    def _outside(self, number: int, _: FrameType | None) -> None:
        """A signal while no loop runs."""
        if os.getpid() == self._owner:
            ORDERS.pending = number

    def _listen(self) -> None:
        """Start the clock as soon as the signal comes.

        Python calls a handler between two of its own instructions, and a process that waits for the others in a
        collective call comes to none; the number of the signal is written to a pipe all the same.
        """
        read, write = self._pipe = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        threading.Thread(target=self._hear, args=(read,), daemon=True).start()

    def _hear(self, read: int) -> None:
        while numbers := os.read(read, 64):
            if ASK in numbers and self._timer is None:
                self._timer = threading.Timer(PATIENCE * self._notice, self._too_late)
                self._timer.daemon = True
                self._timer.start()
        os.close(read)

    def _too_late(self) -> None:
        if self._over:
            return
        print("the next step is too far away to save it: starts again from the last checkpoint", flush=True)
        try:
            self.now()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except UserError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            code = 2
        except Exception:  # SLURM cannot be asked: the script behind the program tries again
            traceback.print_exc()
            code = 1
        os._exit(code & 255)
