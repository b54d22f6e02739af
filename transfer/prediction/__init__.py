"""Predictions of finished runs for any image: maps, panels, model files."""

from __future__ import annotations
