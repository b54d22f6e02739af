"""Errors that a user can act on."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user gave or asked for cannot work.

    The message is one line that says what is wrong, where, and what to do. Programs print it
    without a traceback (see :func:`harness.program.run_program`).
    """


def closest(name: str, names: Iterable[str], least: float = 0.5) -> str:
    """``" (did you mean 'x'?)"`` for the nearest of ``names``, or an empty string.

    Args:
        name: what was given.
        names: what there is.
        least: of the likeness of two names, from 0 to 1.
    """
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=least)
    return f" (did you mean '{near[0]}'?)" if near else ""
