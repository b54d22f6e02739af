"""Colours for report panels."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True)
class Scale:
    """How the colours of continuous values are to be read.

    Attributes:
        low: the value of the first colour.
        high: the value of the last colour.
        unit: of both.
        colors: name of the colour map (matplotlib's).
    """

    low: float
    high: float
    unit: str = ""
    colors: str = "viridis"


@lru_cache
def palette(classes: int) -> np.ndarray:
    """A colour for each class index and black for 255: uint8 ``[256, 3]``.

    Hues step by the golden ratio, so that neighbouring indices differ; class 0 is dark grey, since it
    is a background or the commonest surface in most data sets.
    """
    colors = np.zeros((256, 3), np.uint8)
    for index in range(min(classes, 255)):
        hue, level = (index * 0.618034) % 1, 0.95 - 0.2 * (index % 3)
        rgb = (0.25, 0.25, 0.25) if index == 0 else colorsys.hsv_to_rgb(hue, 0.65, level)
        colors[index] = np.round(np.array(rgb) * 255)
    return colors


def gray(values: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as grey, uint8 ``[H, W, 3]``."""
    return np.repeat((np.clip(values, 0, 1) * 255).round().astype(np.uint8)[..., None], 3, axis=2)


def ramp(values: np.ndarray, low: float, high: float, colors: str = "viridis") -> np.ndarray:
    """Values from ``low`` to ``high`` by a perceptually even colour map, uint8 ``[H, W, 3]``."""
    from matplotlib import colormaps

    share = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    return colormaps[colors](share, bytes=True)[..., :3]


def wheel(vectors: np.ndarray, longest: float) -> np.ndarray:
    """Directions (x right, y down) as hues, and lengths up to ``longest`` as strength of colour.

    Args:
        vectors: ``[H, W, 2]``.
        longest: the length whose colour is full.

    Returns:
        uint8 ``[H, W, 3]``.
    """
    from matplotlib.colors import hsv_to_rgb

    hue = (np.arctan2(-vectors[..., 1], vectors[..., 0]) / (2 * np.pi)) % 1
    strength = np.clip(np.hypot(vectors[..., 0], vectors[..., 1]) / longest, 0, 1)
    rgb = hsv_to_rgb(np.stack([hue, strength, np.full_like(hue, 0.95)], axis=-1))
    return (rgb * 255).round().astype(np.uint8)
