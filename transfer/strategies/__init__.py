"""How several tasks are optimised together: balance, schedule and partition, one file each.

The three are independent choices; each registers itself in :mod:`transfer.strategies.registry`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transfer.strategies.registry import BALANCES, PARTITIONS, SCHEDULES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transfer.strategies.base import Balance

__all__ = ["balances", "build_balance", "partitions", "schedules"]


def build_balance(name: str, tasks: Sequence[str], **options: Any) -> Balance:
    """The balance rule ``name`` for ``tasks``.

    Raises:
        UserError: no such rule, or an option that does not fit it.
    """
    from harness.config import option_defaults
    from harness.errors import UserError, closest

    rule = BALANCES.get(name)
    known = option_defaults(rule)
    for option in options:
        if option not in known:
            has = f"its options are {', '.join(known)}" if known else "it has no options"
            raise UserError(f"balance '{name}' has no option '{option}'{closest(option, known)}: {has}")
    return rule(list(tasks), **options)


def balances() -> list[str]:
    """Names of the balance rules."""
    return BALANCES.names()


def schedules() -> list[str]:
    """Names of the schedules."""
    return SCHEDULES.names()


def partitions() -> list[str]:
    """Names of the partitions."""
    return PARTITIONS.names()
