"""Masks of objects as files and in pictures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from harness.files import write_atomically
from harness.report import pyplot, save_figure
from pretrain.evaluation.colours import class_colours
from pretrain.evaluation.region_and_boundary import boundary

_WIDTH = 320
_OBJECTS = 255


def write_mask(path: Path, objects: np.ndarray) -> None:
    """A mask as PNG with a palette, as DAVIS has its annotations and takes results.

    Args:
        path: of the file.
        objects: uint8 ``[H, W]``, the number of each pixel's object, 0 none.
    """
    colours = class_colours(_OBJECTS).copy()
    colours[0] = 0
    image = Image.fromarray(objects, "L")
    image.putpalette(colours.tobytes())
    content = io.BytesIO()
    image.save(content, "PNG")
    write_atomically(path, lambda file: file.write(content.getvalue()))


def overlay(image: np.ndarray, objects: np.ndarray, truth: np.ndarray | None = None, width: int = _WIDTH) -> np.ndarray:
    """Objects in their colours over a frame, which is grey and darker elsewhere.

    Args:
        image: uint8 ``[H, W, 3]``.
        objects: uint8 ``[H, W]``, what is painted.
        truth: uint8 ``[H, W]``, what is outlined in white; None: nothing.
        width: of the result, pixels.
    """
    size = (width, max(1, round(image.shape[0] * width / image.shape[1])))
    picture = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC), np.float32)
    painted = _resize(objects, size)
    colours = class_colours(_OBJECTS)[painted].astype(np.float32)
    grey = picture.mean(2, keepdims=True)
    light = grey / 255  # an object keeps its light and shade
    shown = np.where((painted > 0)[..., None], (0.55 + 0.45 * light) * colours + 25 * light, 0.6 * grey + 0.1 * picture)
    shown = shown.clip(0, 255)
    if truth is not None:
        outlined = _resize(truth, size)
        lines = np.zeros(outlined.shape, bool)
        for number in np.unique(outlined[outlined > 0]):
            lines |= boundary(outlined == number)
        shown[lines] = 255
    return shown.round().astype(np.uint8)


def _resize(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))


@dataclass
class Strip:
    """A few frames of a video for a picture.

    Attributes:
        name: of the video.
        panels: overlays, the first of them the first frame.
        titles: of the panels.
        score: J&F of the video, percent.
    """

    name: str
    score: float
    panels: list[np.ndarray] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)


def draw_strips(strips: Sequence[Strip], path: Path) -> Path:
    """One row for each video."""
    columns = max(len(strip.panels) for strip in strips)
    shapes = [strip.panels[0].shape for strip in strips]
    width = 11.0
    cell = width / columns
    heights = [cell * shape[0] / shape[1] + 0.26 for shape in shapes]
    plt = pyplot()
    figure, axes = plt.subplots(len(strips), columns, figsize=(width, sum(heights)), squeeze=False,
                                gridspec_kw={"height_ratios": heights})
    for axis in axes.flat:
        axis.set_axis_off()
    for row, strip in zip(axes, strips, strict=True):
        for axis, panel, title in zip(row, strip.panels, strip.titles, strict=False):
            axis.imshow(panel, interpolation="nearest")
            axis.set_title(title, fontsize=8, pad=2)
        row[0].set_title(f"{strip.name}   J&F {strip.score:.1f} %", fontsize=8, pad=2, loc="left", fontweight="bold")
    figure.subplots_adjust(0, 0, 1, 0.99, wspace=0.02, hspace=0.13)
    return save_figure(figure, path)


def draw_course(regions: Sequence[np.ndarray], boundaries: Sequence[np.ndarray], path: Path, bins: int = 10) -> Path:
    """J and F by how much of the video has passed, averaged over objects.

    Args:
        regions: J of each object of each video, ``[objects, frames]``, in the order of frames.
        boundaries: F, the same.
        path: of the picture.
        bins: parts that a video is cut into.
    """
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(6, 3.2))
    edges = np.linspace(0, 1, bins + 1)
    for label, values, colour in (("J, region", regions, "#3b6fb6"), ("F, boundary", boundaries, "#d95f02")):
        rows = []
        for video in values:
            part = np.minimum((np.arange(video.shape[1]) + 0.5) / video.shape[1] * bins, bins - 1).astype(int)
            for item in video:
                rows.append([item[part == number].mean() if (part == number).any() else np.nan
                             for number in range(bins)])
        counted = np.array(rows) * 100
        seen = ~np.isnan(counted).all(0)
        middle = (edges[:-1] + edges[1:])[seen] / 2 * 100
        axis.plot(middle, np.nanmean(counted[:, seen], 0), marker=".", color=colour, label=label)
    axis.set_xlabel("share of the video that has passed [%]", fontsize=8)
    axis.set_ylabel("mean over objects [%]", fontsize=8)
    axis.set_xlim(0, 100)
    axis.set_ylim(0, 100)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8, frameon=False)
    return save_figure(figure, path)


def write_animation(frames: Sequence[np.ndarray], path: Path, milliseconds: int = 120) -> None:
    """Overlays as an animated GIF that repeats."""
    first, *rest = (Image.fromarray(frame) for frame in frames)
    content = io.BytesIO()
    first.save(content, "GIF", save_all=True, append_images=rest, duration=milliseconds, loop=0)
    write_atomically(path, lambda file: file.write(content.getvalue()))
