"""How every command starts and ends."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

# Threads that wait for each other spin by default. Beside data workers, or any program on the same cores, spinning
# makes a step several times slower; this is read when torch is loaded, so it stands before anything that loads it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from harness.errors import UserError  # noqa: E402
from harness.files import NO_SPACE  # noqa: E402


def run_program(main: Callable[[], int | None]) -> None:
    """Call ``main`` and exit with its code; a :class:`UserError` becomes one line and code 2."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL) if hasattr(signal, "SIGPIPE") else None
    try:
        try:
            code = main()
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
