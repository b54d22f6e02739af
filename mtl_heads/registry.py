"""The three kinds of things that are found by name in this package."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from harness.errors import UserError, closest
from harness.registry import Registry

ARCHITECTURES: Registry = Registry("architecture", "mtl_heads")
HEADS: Registry = Registry("head", "mtl_heads.heads")
NECKS: Registry = Registry("neck", "mtl_heads.necks")


def check_options(what: str, thing: type, options: Mapping[str, Any]) -> None:
    """Refuse options that a registered class does not take.

    The options of a registered class are the keyword-only parameters of its constructor.

    Args:
        what: how the message calls the thing, for example ``"head 'psp'"``.
        thing: the registered class.
        options: what the user gave.

    Raises:
        UserError: an option is unknown; the message names the closest one and all the others.
    """
    known = [
        parameter.name
        for parameter in inspect.signature(thing).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    for name in options:
        if name not in known:
            has = f"its options are {', '.join(known)}" if known else "it has no options"
            raise UserError(f"{what} has no option '{name}'{closest(name, known)}: {has}")
