"""Pictures of tasks as tiles of a page: titles, legends, colour bars and points, in letters of legible size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from transfer.tasks._pictures import Scale, ramp
from transfer.tasks.base import Task

LINE = 17
"""Height of a line of small letters, pixels."""
INK, SOFT, PAPER = (30, 30, 30), (90, 90, 90), (255, 255, 255)
Legend = list[tuple[str, tuple[int, int, int]]]
_BAR, _DIM = 10, 0.45


@dataclass
class Tile:
    """A picture and how to read it.

    Attributes:
        picture: of the size shown.
        title: above it.
        legend: words and their colours, below it.
        scale: of a continuous quantity, below it.
    """

    picture: Image.Image
    title: str = ""
    legend: Legend = field(default_factory=list)
    scale: Scale | None = None

    def foot(self, width: int) -> int:
        """Height of what stands below the picture."""
        lines = len(wrapped(self.legend, width))
        return (6 if lines or self.scale else 0) + LINE * lines + (_BAR + LINE + 4 if self.scale else 0)

    def draw_foot(self, draw: ImageDraw.ImageDraw, left: int, top: int, width: int) -> None:
        """Legend and colour bar, from this corner on."""
        if self.scale is not None:
            draw_bar(draw, self.scale, left, top + 6, width)
            top += _BAR + LINE + 4
        draw_legend(draw, wrapped(self.legend, width), left, top + 6)


def is_unlabelled(task: Task, truth: np.ndarray | None) -> bool:
    """Whether a target says nothing at all."""
    return truth is None or bool((np.asarray(truth) == task.ignored).all())


def draw_task(task: Task, image: np.ndarray, array: np.ndarray, size: tuple[int, int],
              truth: np.ndarray | None = None) -> Image.Image:
    """A truth or a prediction of a dense task.

    Args:
        task: whose.
        image: uint8 ``[H, W, 3]``.
        array: from a data set or :meth:`transfer.tasks.base.Task.from_prediction`.
        size: width and height of the picture.
        truth: fixes the colours of continuous quantities.
    """
    if hasattr(task, "point"):
        return _marked(image, task.point(array), array.shape, size)
    smaller = size[0] < array.shape[1] and not task.classes
    return Image.fromarray(task.picture(array, truth)).resize(
        size, Image.Resampling.BOX if smaller else Image.Resampling.NEAREST)


def no_label(size: tuple[int, int]) -> Image.Image:
    """What stands where a sample has no label."""
    page = Image.new("RGB", size, (238, 238, 238))
    ImageDraw.Draw(page).text((size[0] / 2, size[1] / 2), "no label", SOFT, font(13), anchor="mm")
    return page


def _marked(image: np.ndarray, point: tuple[float, float], shape: Sequence[int],
            size: tuple[int, int]) -> Image.Image:
    """The image, dimmed, with a ring and a cross about a point in pixels of a map of ``shape``."""
    page = Image.fromarray((image * _DIM).astype(np.uint8)).resize(size, Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(page)
    if not np.isfinite(point).all():
        draw.text((size[0] / 2, size[1] / 2), "nowhere", PAPER, font(13), anchor="mm")
        return page
    x, y = point[0] * size[0] / shape[1], point[1] * size[1] / shape[0]
    radius = max(6.0, min(size) / 18)
    for color, width in (((0, 0, 0), 5), ((255, 210, 40), 2)):  # a dark seam, for bright pictures
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=color, width=width)
        for dx, dy in ((1, 0), (0, 1)):
            draw.line((x - 1.7 * radius * dx, y - 1.7 * radius * dy, x + 1.7 * radius * dx, y + 1.7 * radius * dy),
                      color, width)
    return page


def wrapped(legend: Legend, width: int) -> list[list[tuple[int, str, tuple]]]:
    """Lines of a legend: offset, text and colour of each entry."""
    lines: list[list[tuple[int, str, tuple]]] = []
    used = width
    for text, color in legend:
        room = 16 + int(font(12).getlength(text)) + 12
        if used + room > width and (not lines or lines[-1]):
            lines.append([])
            used = 0
        lines[-1].append((used, text, color))
        used += room
    return lines


def draw_legend(draw: ImageDraw.ImageDraw, lines: list[list[tuple[int, str, tuple]]], left: int, top: int) -> None:
    """The lines of a legend, each entry beside its colour."""
    for number, line in enumerate(lines):
        y = top + number * LINE
        for offset, text, color in line:
            draw.rectangle((left + offset, y + 2, left + offset + 11, y + 13), color, SOFT)
            draw.text((left + offset + 16, y), text, SOFT, font(12))


def draw_bar(draw: ImageDraw.ImageDraw, scale: Scale, left: int, top: int, width: int) -> None:
    """A colour bar with a few round numbers, the last with the unit."""
    colors = ramp(np.linspace(0, 1, width)[None], 0, 1, scale.colors)[0]
    for x in range(width):
        draw.line((left + x, top, left + x, top + _BAR - 1), tuple(colors[x].tolist()))
    numbers = ticks(scale)
    span = scale.high - scale.low
    for value, text in numbers:
        x = left + (round(min(max((value - scale.low) / span, 0), 1) * (width - 1)) if span > 0 else width // 2)
        draw.line((x, top + _BAR, x, top + _BAR + 2), SOFT)
        half = font(12).getlength(text) / 2
        draw.text((min(max(x, left + half), left + width - half), top + _BAR + 3), text, SOFT, font(12), anchor="ma")


def ticks(scale: Scale) -> list[tuple[float, str]]:
    """Two to four round numbers of a scale, or its one value where both ends are nearly equal."""
    from matplotlib.ticker import MaxNLocator

    unit = f" {scale.unit}" if scale.unit else ""
    if not scale.high - scale.low > 1e-3 * max(abs(scale.low), abs(scale.high)):
        return [(scale.low, f"{scale.low:.3g}{unit}")]
    found: list[float] = []
    for most in (3, 4, 5, 6):
        values = MaxNLocator(nbins=most, steps=[1, 2, 5, 10]).tick_values(scale.low, scale.high)
        slack = 0.01 * (scale.high - scale.low)  # a least depth of nearly 0 is 0 here
        found = [float(value) for value in values if scale.low - slack <= value <= scale.high + slack]
        if len(found) >= 2:
            break
    last = len(found) - 1
    return [(value, f"{value + 0.0:.6g}{unit if place == last else ''}") for place, value in enumerate(found)]


def broken(text: str, width: int, size: int = 13) -> list[str]:
    """A text in lines that fit."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font(size).getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


@lru_cache
def font(size: int) -> Any:
    """DejaVu Sans, which matplotlib brings."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)
