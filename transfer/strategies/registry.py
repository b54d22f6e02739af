"""The three kinds of strategy parts by name."""

from __future__ import annotations

from harness.registry import Registry

BALANCES: Registry = Registry("balance", "transfer.strategies")
SCHEDULES: Registry = Registry("schedule", "transfer.strategies")
PARTITIONS: Registry = Registry("partition", "transfer.strategies")
