"""One picture that shows an image and all that is predicted of it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw

from transfer.tasks.base import Task
from transfer.tiles import INK, LINE, PAPER, Tile, broken, draw_task, font

_TILE = 360
"""Longer side of a tile, pixels."""
_GAP, _TITLE = 10, 24
_MOST = 6
"""Tiles in a row at most."""


def panel(image: np.ndarray, arrays: Mapping[str, np.ndarray], tasks: Mapping[str, Task]) -> Image.Image:
    """Tiles of the image and of each dense task, with what their colours mean; image tasks in words below.

    Points are marked on the image, dimmed.

    Args:
        image: uint8 ``[H, W, 3]``.
        arrays: predictions by task, as :meth:`transfer.tasks.base.Task.from_prediction` gives them.
        tasks: by name.
    """
    height, width = image.shape[:2]
    scale = _TILE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    words = [f"{name}: {tasks[name].caption(arrays[name])}" for name in arrays if not tasks[name].dense]
    tiles = [Tile(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS), "image")]
    for name in (name for name in arrays if tasks[name].dense):
        task, array = tasks[name], arrays[name]
        bar = None if hasattr(task, "point") else task.scale(array)
        tiles.append(Tile(draw_task(task, image, array, size), name, task.legend(array), bar))
    tile_width = max(size[0], 150)
    columns = _columns(len(tiles), tile_width, size[1])
    rows = [tiles[start:start + columns] for start in range(0, len(tiles), columns)]
    heights = [_TITLE + size[1] + max(tile.foot(tile_width) for tile in row) + _GAP for row in rows]
    across = columns * (tile_width + _GAP) + _GAP
    captions = [part for word in words for part in broken(word, across - 2 * _GAP)]
    page = Image.new("RGB", (across, _GAP + sum(heights) + LINE * len(captions) + (_GAP if captions else 0)), PAPER)
    draw = ImageDraw.Draw(page)
    top = _GAP
    for row, tall in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            left = _GAP + column * (tile_width + _GAP)
            draw.text((left, top), tile.title, INK, font(15))
            page.paste(tile.picture, (left, top + _TITLE))
            tile.draw_foot(draw, left, top + _TITLE + size[1], tile_width)
        top += tall
    for number, caption in enumerate(captions):
        draw.text((_GAP, top + number * LINE), caption, INK, font(13))
    return page


def _columns(tiles: int, width: int, height: int) -> int:
    """The fewest places left empty, and then about half as wide again as high; rows of :data:`_MOST` at most."""
    def shape(n: int) -> float:
        return abs(float(np.log(n * width / (-(-tiles // n) * (height + _TITLE + 2 * LINE)) / 1.5)))

    most = min(tiles, _MOST)
    return min(range(min(2, most), most + 1), key=lambda n: (-tiles % n, shape(n)))
