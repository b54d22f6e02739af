"""How several tasks are optimised together: balance, schedule and partition, one file each.

The three are independent choices; each registers itself in :mod:`transfer.strategies.registry`.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from transfer.strategies.registry import BALANCES, PARTITIONS, SCHEDULES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transfer.strategies.base import Balance, BalanceConfig

__all__ = ["balances", "build_balance", "partitions", "schedules"]


def build_balance(name: str, tasks: Sequence[str], **options: Any) -> Balance:
    """The balance rule ``name`` for ``tasks``.

    Raises:
        UserError: no such rule, or an option that does not fit it.
    """
    from harness.config import option_defaults
    from harness.errors import UserError, closest
    from transfer.strategies.base import BalanceConfig

    rule = BALANCES.get(name)
    known = option_defaults(rule)
    common = {field.name for field in dataclasses.fields(BalanceConfig)}
    for option in options:
        if option not in known and option not in common:
            has = f"its options are {', '.join(known)}" if known else "it has no options"
            raise UserError(f"balance '{name}' has no option '{option}'{closest(option, [*known, *common])}: {has}")
    own = {option: value for option, value in options.items() if option in known}
    rest = {option: value for option, value in options.items() if option not in known}
    return with_options(rule(list(tasks), **own), BalanceConfig(**rest))


def with_options(balance: Balance, common: BalanceConfig) -> Balance:
    """Give a rule the options that all rules have.

    Raises:
        UserError: an option of rules on gradients for a rule on losses.
    """
    from harness.errors import UserError
    from transfer.strategies.base import BalanceConfig, LossBalance

    if isinstance(balance, LossBalance):
        for option in ("level", "mode", "update_every", "scale_heads"):
            value = getattr(common, option)
            if value != getattr(BalanceConfig(), option):
                raise UserError(f"balance.{option} is {value}, and balance '{BALANCES.name_of(type(balance))}' reads "
                                "the values of losses alone: leave it out, or choose a rule on gradients")
    balance.common = common
    return balance


def balances() -> list[str]:
    """Names of the balance rules."""
    return BALANCES.names()


def schedules() -> list[str]:
    """Names of the schedules."""
    return SCHEDULES.names()


def partitions() -> list[str]:
    """Names of the partitions."""
    return PARTITIONS.names()
