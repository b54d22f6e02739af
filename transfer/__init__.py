"""From a backbone to many vision tasks at once: tasks, data sets, strategies, evaluation."""

from __future__ import annotations

from transfer.delta import delta_mtl

__all__ = ["delta_mtl"]
