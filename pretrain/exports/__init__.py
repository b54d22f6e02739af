"""Files of backbones for other programs: one file for each kind."""

from __future__ import annotations

from pretrain.exports.base import EXPORTS, Export, export_for

__all__ = ["EXPORTS", "Export", "export_for"]
