"""Scenes written to disk in the layouts of published data sets, one file each."""

from __future__ import annotations

from scenes.export.base import LAYOUTS, Layout
from scenes.export.writing import export

__all__ = ["LAYOUTS", "Layout", "export"]
