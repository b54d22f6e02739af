"""Checkpoint files and how to find the encoder in each: one file for each format."""

from __future__ import annotations

from pretrain.formats.base import FORMATS, CheckpointError, Encoder, Format, Loaded

__all__ = ["FORMATS", "CheckpointError", "Encoder", "Format", "Loaded"]
