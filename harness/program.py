"""How every command starts and ends."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from harness.errors import UserError


def run_program(main: Callable[[], int | None]) -> None:
    """Call ``main`` and exit with its code; a :class:`UserError` becomes one line and code 2."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL) if hasattr(signal, "SIGPIPE") else None
    try:
        code = main()
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
