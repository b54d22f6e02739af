"""A picture of queries with their nearest neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from harness.report import pyplot, save_figure
from pretrain.evaluation.palette import RIGHT, SAME, WRONG

SIDE = 128
"""Pixels of the longer side of an image in the picture."""


@dataclass(frozen=True)
class Neighbor:
    """One neighbour.

    Args:
        image: uint8 ``[H, W, 3]``.
        title: what stands above it.
        right: whether it has the query's class.
        same: whether it is, or was cut from, the query's own image.
    """

    image: np.ndarray
    title: str
    right: bool
    same: bool = False


def draw_neighbors(path: Path, rows: Sequence[tuple[np.ndarray, str, Sequence[Neighbor]]]) -> Path:
    """Draw a row for each query: the query, and its neighbours from the nearest on.

    Args:
        path: of the picture.
        rows: image of the query, what stands beside it, its neighbours.
    """
    plt = pyplot()
    columns = 1 + max(len(found) for _, _, found in rows)
    figure, axes = plt.subplots(len(rows), columns, figsize=(1.2 * columns, 1.42 * len(rows)), squeeze=False,
                                gridspec_kw={"wspace": 0.12, "hspace": 0.24})
    for axis in axes.flat:
        axis.set_axis_off()
    for line, (query, title, found) in zip(axes, rows, strict=True):
        line[0].set_anchor("E")
        line[0].imshow(_small(query))
        line[0].text(-0.06, 0.5, title, fontsize=8, ha="right", va="center", transform=line[0].transAxes)
        for axis, neighbor in zip(line[1:], found, strict=False):
            axis.imshow(_small(neighbor.image))
            axis.set_title(neighbor.title, fontsize=6.3, pad=3, color=RIGHT if neighbor.right else "#707070")
            axis.set_axis_on()
            axis.set_xticks([])
            axis.set_yticks([])
            colour = SAME if neighbor.same else RIGHT if neighbor.right else WRONG
            for spine in axis.spines.values():
                spine.set(edgecolor=colour, linewidth=3, linestyle=(0, (2, 1)) if neighbor.same else "-",
                          capstyle="butt" if neighbor.same else "projecting")
    return save_figure(figure, path)


def _small(image: np.ndarray) -> Image.Image:
    """An image whose longer side is :data:`SIDE` pixels, so that reports stay small."""
    scale = SIDE / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
