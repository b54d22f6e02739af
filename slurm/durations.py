"""Time limits, as SLURM writes them and as people do."""

from __future__ import annotations

import math
import re

from harness.errors import UserError

_UNITS = {"d": 1440.0, "h": 60.0, "m": 1.0, "s": 1 / 60}


def minutes(text: str | int) -> int:
    """Whole minutes, rounded up, of ``90m``, ``1d12h`` or any of SLURM's forms (``24:00:00``, ``1-12``, ``90``).

    Raises:
        UserError: it is none of these, or not more than nothing.
    """
    if isinstance(text, int):  # YAML reads 24:00:00 as a number with base 60, so a number may be either
        raise UserError(f"time is the number {text}: write it with a unit or in quotes, for example 90m, 24h, "
                        "1d12h or '24:00:00'")
    found = _with_units(text) or _as_slurm_does(text)
    if not found:
        raise UserError(f"time '{text}' is not a time limit: give for example 90m, 24h, 1d12h, or SLURM's "
                        "'days-hours:minutes:seconds'")
    return math.ceil(found - 1e-9)


def _with_units(text: str) -> float:
    if not re.fullmatch(r"(\d+[dhms])+", text):
        return 0.0
    return sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)([dhms])", text))


def _as_slurm_does(text: str) -> float:
    """``M``, ``M:S``, ``H:M:S``, ``D-H``, ``D-H:M``, ``D-H:M:S``."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+(?::\d+){0,2})", text)
    if not match:
        return 0.0
    parts = [int(part) for part in match[2].split(":")]
    if match[1] is not None:
        return int(match[1]) * 1440 + sum(part * unit for part, unit in zip(parts, (60, 1, 1 / 60), strict=False))
    if len(parts) == 3:
        return parts[0] * 60 + parts[1] + parts[2] / 60
    return parts[0] + (parts[1] / 60 if len(parts) == 2 else 0)
