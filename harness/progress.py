"""Progress bars."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


def progress(total: int | None, *, initial: int = 0, unit: str = "img", description: str = "",
             enabled: bool = True, leave: bool = True, delay: float = 0) -> tqdm:
    """A bar with throughput and time left, on standard error.

    On a terminal it is redrawn ten times a second; in a log file it prints a line every half
    minute, so that logs of long runs stay short.

    Args:
        total: how many units there are.
        initial: how many were done before (a resumed run).
        unit: what is counted.
        description: what stands before the bar.
        enabled: False on every process but the main one.
        leave: keep the finished bar on the screen.
        delay: seconds before it appears, for what is usually done by then.
    """
    terminal = sys.stderr.isatty()
    options: dict[str, Any] = {"mininterval": 0.1} if terminal else {"mininterval": 30, "maxinterval": 60}
    return tqdm(total=total, initial=initial, unit=unit, desc=description, disable=not enabled, leave=leave,
                delay=delay, dynamic_ncols=terminal, smoothing=0.05, **options)
