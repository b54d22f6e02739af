"""Colours of marks in the report's pictures; those of classes: :mod:`pretrain.evaluation.colours`."""

from __future__ import annotations

RIGHT, WRONG, SAME, PLAIN = "#1a9850", "#c2c2c2", "#7b3294", "#3b6fb6"
"""Of a right neighbour, of a wrong one, of one from the same image, and of bars."""
