"""Pictures of segments: as maps, and beside those that are most like them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.report import pyplot, save_figure
from pretrain.evaluation.colours import class_colours
from pretrain.evaluation.labelled import IGNORED
from pretrain.evaluation.palette import RIGHT

_WRONG = "#c1121f"

def draw_segments(panels: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]], names: Sequence[str],
                  path: Path) -> Path:
    """A row for each image.

    Args:
        panels: image uint8 ``[H, W, 3]``, segments, predicted classes and true classes, uint8 ``[H, W]``.
        names: of the classes.
        path: of the PNG.
    """
    from matplotlib import colormaps
    from matplotlib.patches import Patch

    figure, axes = pyplot().subplots(len(panels), 4, figsize=(11, _height(panels, 4, 11)), squeeze=False)
    classes = class_colours(len(names))
    distinct = np.round(colormaps["tab20"](np.arange(256) % 20)[:, :3] * 255).astype(np.uint8)
    present = set()
    for row, (image, segments, predicted, truth) in zip(axes, panels, strict=True):
        for axis, picture in zip(row, (image, distinct[segments], classes[predicted], classes[truth]), strict=True):
            _show(axis, picture)
        present |= set(np.unique(predicted).tolist()) | set(np.unique(truth).tolist())
    for axis, title in zip(axes[0], ("image", "segments", "retrieved classes", "truth"), strict=True):
        axis.set_title(title, fontsize=11)
    handles = [Patch(facecolor=classes[number] / 255, label=names[number]) for number in sorted(present - {IGNORED})]
    figure.tight_layout(pad=0.4)
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0), ncol=8, fontsize=10, frameon=False)
    return save_figure(figure, path)


def draw_neighbours(rows: Sequence[Sequence[tuple[np.ndarray, np.ndarray, str, bool | None]]], path: Path) -> Path:
    """A row for each query.

    Args:
        rows: the query, then its neighbours: image uint8 ``[H, W, 3]``, segment bool ``[H, W]``, name of its class,
            and whether that is right (None for the query).
        path: of the PNG.
    """
    columns = max(map(len, rows))
    figure, axes = pyplot().subplots(len(rows), columns, figsize=(11, _height(rows, columns, 11, 0.25)),
                                     squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for line, row in zip(axes, rows, strict=True):
        for axis, (image, segment, name, right) in zip(line, row, strict=False):
            _show(axis, outlined(image, segment))
            axis.set_title(f"query: {name}" if right is None else name, fontsize=10, pad=3,
                           color="black" if right is None else RIGHT if right else _WRONG)
    figure.tight_layout(pad=0.4)
    return save_figure(figure, path)


def outlined(image: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """An image that is pale but for a region, which has a yellow border; uint8 ``[H, W, 3]``."""
    from scipy.ndimage import binary_dilation, binary_erosion

    width = max(1, round(min(inside.shape) / 100))
    border = binary_dilation(inside, iterations=width) & ~binary_erosion(inside, iterations=width, border_value=1)
    pale = (image * 0.35 + 255 * 0.65).astype(np.uint8)
    picture = np.where(inside[..., None], image, pale)
    picture[border] = (255, 200, 0)
    return picture


def _show(axis: Any, picture: np.ndarray) -> None:
    axis.imshow(picture, interpolation="nearest")
    axis.set_axis_off()


def _height(rows: Sequence[Sequence[Any]], columns: int, width: float, title: float = 0.08) -> float:
    """Of a figure whose rows are as high as the first image of each asks for, in inches."""
    return sum(width / columns * row_image.shape[0] / row_image.shape[1] + title
               for row_image in (_image(row) for row in rows))


def _image(row: Sequence[Any]) -> np.ndarray:
    return row[0] if isinstance(row[0], np.ndarray) else row[0][0]
