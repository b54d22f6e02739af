"""How every command starts and ends."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable

# Threads that wait for each other spin by default. Beside data workers, or any program on the same cores, spinning
# makes a step several times slower; this is read when torch is loaded, so it stands before anything that loads it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from harness.errors import UserError  # noqa: E402
from harness.files import NO_SPACE  # noqa: E402


def run_program(main: Callable[[], int | None]) -> None:
    """Call ``main`` and exit with its code; a :class:`UserError` becomes one line and code 2.

    A reader that has had enough (``| head``) ends the program quietly. The signal SIGPIPE stays off, as
    Python has it: a closed connection, of a tracker for example, is an error that its owner handles.
    """
    try:
        try:
            code = main()
            sys.stdout.flush()
        except BrokenPipeError:
            if not _nobody_reads():
                raise
            code = 141  # 128 + SIGPIPE, as a shell reports it
        except OSError as error:  # of a library that writes on its own, a tracker for example
            if error.errno not in NO_SPACE:
                raise
            where = f" (writing {error.filename})" if error.filename else ""
            raise UserError(f"{NO_SPACE[error.errno]}{where}: free some space, then start the same command "
                            "again") from error
    except UserError as error:
        rank = int(os.environ.get("RANK", 0))
        who = f"[process {rank}] " if rank else ""
        sys.stdout.flush()
        print(f"{who}error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        code = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        code = 130
    sys.exit(code)


def _nobody_reads() -> bool:
    """Whether standard output is a pipe that was closed; what is still to be written then goes nowhere."""
    output = sys.stdout.fileno()
    poll = select.poll()
    poll.register(output, 0)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return True
