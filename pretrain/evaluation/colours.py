"""Colours of classes in pictures."""

from __future__ import annotations

import colorsys
from functools import cache

import numpy as np

from pretrain.evaluation.labelled import IGNORED


@cache
def class_colours(classes: int) -> np.ndarray:
    """A colour for each class, and white for pixels that count for nothing: uint8 ``[256, 3]``.

    The class of a number has the same colour whatever the data. Hues step by the golden ratio, so that neighbouring
    numbers differ; class 0 is dark grey, since it is a background or the commonest surface.
    """
    colours = np.zeros((256, 3), np.uint8)
    for number in range(min(classes, IGNORED)):
        hue, level = (number * 0.618034) % 1, 0.95 - 0.2 * (number % 3)
        rgb = (0.25, 0.25, 0.25) if number == 0 else colorsys.hsv_to_rgb(hue, 0.65, level)
        colours[number] = np.round(np.array(rgb) * 255)
    colours[IGNORED] = 255
    return colours
