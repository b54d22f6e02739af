"""One picture that shows an image and all that is predicted of it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from transfer.tasks.base import Task

_TILE = 360
"""Longer side of a tile, pixels."""
_GAP, _TITLE, _LINE = 10, 24, 17
_INK, _SOFT, _PAPER = (30, 30, 30), (110, 110, 110), (255, 255, 255)


def panel(image: np.ndarray, arrays: Mapping[str, np.ndarray], tasks: Mapping[str, Task]) -> Image.Image:
    """Tiles of the image and of each dense task, with what their colours mean; image tasks in words below.

    Args:
        image: uint8 ``[H, W, 3]``.
        arrays: predictions by task, as :meth:`transfer.tasks.base.Task.from_prediction` gives them.
        tasks: by name.
    """
    height, width = image.shape[:2]
    scale = _TILE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    dense = [name for name in arrays if tasks[name].dense]
    words = [f"{name}: {tasks[name].caption(arrays[name])}" for name in arrays if not tasks[name].dense]
    tiles = [("image", Image.fromarray(image).resize(size, Image.Resampling.LANCZOS), [])]
    for name in dense:
        drawn = Image.fromarray(tasks[name].picture(arrays[name]))
        smooth = scale < 1 and not tasks[name].classes
        tiles.append((name, drawn.resize(size, Image.Resampling.BOX if smooth else Image.Resampling.NEAREST),
                      tasks[name].legend(arrays[name])))
    tile_width = max(size[0], 150)
    columns = _columns(len(tiles), tile_width, size[1])
    rows = [tiles[start:start + columns] for start in range(0, len(tiles), columns)]
    legends = [[_wrapped(legend, tile_width) for _, _, legend in row] for row in rows]
    heights = [_TITLE + size[1] + _LINE * max(map(len, lines)) + (6 if any(lines) else 0) + _GAP for lines in legends]
    across = columns * (tile_width + _GAP) + _GAP
    captions = [part for word in words for part in _broken(word, across - 2 * _GAP)]
    page = Image.new("RGB", (across, _GAP + sum(heights) + _LINE * len(captions) + (_GAP if captions else 0)), _PAPER)
    draw = ImageDraw.Draw(page)
    top = _GAP
    for row, lines, tall in zip(rows, legends, heights, strict=True):
        for column, ((title, tile, _), entries) in enumerate(zip(row, lines, strict=True)):
            left = _GAP + column * (tile_width + _GAP)
            draw.text((left, top), title, _INK, _font(15))
            page.paste(tile, (left, top + _TITLE))
            _draw_legend(draw, entries, left, top + _TITLE + size[1] + 6)
        top += tall
    for number, caption in enumerate(captions):
        draw.text((_GAP, top + number * _LINE), caption, _INK, _font(13))
    return page


def _columns(tiles: int, width: int, height: int) -> int:
    """So many that the page is about half as wide again as it is high."""
    return min(range(1, tiles + 1),
               key=lambda n: abs(np.log(n * width / (-(-tiles // n) * (height + _TITLE + 2 * _LINE)) / 1.5)))


def _wrapped(legend: list[tuple[str, tuple[int, int, int]]], width: int) -> list[list[tuple[int, str, tuple]]]:
    """Lines of a legend: offset, text and colour of each entry."""
    lines: list[list[tuple[int, str, tuple]]] = []
    used = width
    for text, color in legend:
        room = 16 + int(_font(12).getlength(text)) + 12
        if used + room > width and (not lines or lines[-1]):
            lines.append([])
            used = 0
        lines[-1].append((used, text, color))
        used += room
    return lines


def _draw_legend(draw: ImageDraw.ImageDraw, lines: list[list[tuple[int, str, tuple]]], left: int, top: int) -> None:
    for number, line in enumerate(lines):
        y = top + number * _LINE
        for offset, text, color in line:
            draw.rectangle((left + offset, y + 2, left + offset + 11, y + 13), color, _SOFT)
            draw.text((left + offset + 16, y), text, _SOFT, _font(12))


def _broken(text: str, width: int) -> list[str]:
    """A text in lines that fit."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _font(13).getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)
