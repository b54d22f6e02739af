"""Where images come from: one file for each kind of source."""

from __future__ import annotations

from pretrain.sources.base import SOURCES, Source

__all__ = ["SOURCES", "Source"]
