"""The pictures of a run's report: some images of a split with the truth and the prediction of each task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from harness.files import write_atomically
from transfer.data.loading import Evaluated
from transfer.engine import Transfer
from transfer.tasks.base import Task
from transfer.tiles import INK, LINE, PAPER, SOFT, Tile, broken, draw_task, font, is_unlabelled, no_label

_WIDTH, _SIDE, _GAP = 1160, 104, 8
"""Width of the page, of the names at its left, and of the space between pictures, pixels."""
_MOST, _WIDEST, _BAR = 6, 260, 200
"""Images side by side at most; width of a picture and of a colour bar for all of a row at most, pixels."""


def draw_panels(transfer: Transfer, path: Path) -> Path:
    """A column for each of some images: the image, then truth and prediction of every dense task.

    Below a task stands what its colours mean, and below the images what image tasks say. Samples without a label say
    so.
    """
    config = transfer.config
    samples = Evaluated(transfer.data.split(config.evaluation.split), config.evaluation.size)
    chosen = np.linspace(0, len(samples) - 1, min(config.evaluation.panels, len(samples))).round().astype(int)
    training = transfer.model.training
    transfer.model.eval()
    shown = [_predicted(transfer, samples[int(index)]) for index in chosen]
    transfer.model.train(training)
    blocks = [_block(transfer.tasks, config.tasks, shown[start:start + _MOST]) for start in range(0, len(shown), _MOST)]
    page = Image.new("RGB", (max(block.width for block in blocks), sum(block.height for block in blocks)), PAPER)
    top = 0
    for block in blocks:
        page.paste(block, (0, top))
        top += block.height
    write_atomically(path, lambda file: page.save(file, "PNG", optimize=True))
    return path


def _predicted(transfer: Transfer, sample: Any) -> dict[str, Any]:
    """The image, and truth (or None) and prediction of each task."""
    tasks, names = transfer.tasks, transfer.config.tasks
    image = torch.from_numpy(sample["image"]).permute(2, 0, 1)[None].to(transfer.world.device)
    with torch.no_grad():
        predictions = transfer.model(transfer.network.normalise(image), names).predictions
    pairs = {}
    for name in names:
        task, truth, found = tasks[name], sample["targets"].get(name), predictions[name]
        if task.dense and truth is not None:
            found = task.resized(found, truth.shape[:2])  # values in pixels are those of the label then
        pairs[name] = (None if is_unlabelled(task, truth) else truth), task.from_prediction(found[0])
    return {"image": np.broadcast_to(sample["image"], (*sample["image"].shape[:2], 3)), "pairs": pairs}


def _block(tasks: dict[str, Task], names: list[str], shown: list[dict[str, Any]]) -> Image.Image:
    """Some images side by side."""
    width = min(_WIDEST, (_WIDTH - _SIDE) // len(shown) - _GAP)
    sizes = [(width, max(1, round(width * one["image"].shape[0] / one["image"].shape[1]))) for one in shown]
    tall = max(height for _, height in sizes)
    lefts = [_SIDE + column * (width + _GAP) for column in range(len(shown))]
    dense = [name for name in names if tasks[name].dense]
    words = [_words(tasks, [name for name in names if not tasks[name].dense], one["pairs"], width) for one in shown]
    feet = {name: _feet(tasks[name], [one["pairs"][name] for one in shown]) for name in dense}
    across = len(shown) * (width + _GAP) - _GAP
    most = max(map(len, words))
    height = tall + _GAP + (LINE * most + _GAP if most else 0) + sum(
        2 * (tall + 4) + max(tile.foot(room) for tile, room in _placed(feet[name], width, across)) + 2 * _GAP
        for name in dense)
    page = Image.new("RGB", (max(_SIDE + across, 400), height), PAPER)
    draw = ImageDraw.Draw(page)
    top = 0

    def row(title: str, kind: str, pictures: list[Image.Image]) -> None:
        lines = [*((part, INK) for part in _split(title)), *([(kind, SOFT)] if kind else [])]
        for number, (text, color) in enumerate(lines):
            draw.text((0, top + tall / 2 + LINE * (number - len(lines) / 2)), text, color, font(13))
        for left, picture in zip(lefts, pictures, strict=True):
            page.paste(picture, (left, top + (tall - picture.height) // 2))

    row("image", "", [Image.fromarray(np.ascontiguousarray(one["image"])).resize(size, Image.Resampling.LANCZOS)
                      for one, size in zip(shown, sizes, strict=True)])
    top += tall + _GAP
    if most:
        for left, lines in zip(lefts, words, strict=True):
            for number, line in enumerate(lines):
                draw.text((left, top + LINE * number), line, INK, font(12))
        top += LINE * most + _GAP
    for name in dense:
        task = tasks[name]
        pairs = [(one["image"], *one["pairs"][name], size) for one, size in zip(shown, sizes, strict=True)]
        row(name, "truth", [no_label(size) if truth is None else draw_task(task, image, truth, size, truth)
                            for image, truth, _, size in pairs])
        top += tall + 4
        row(name, "prediction", [draw_task(task, image, found, size, truth) for image, truth, found, size in pairs])
        top += tall
        placed = _placed(feet[name], width, across)
        for (tile, room), left in zip(placed, lefts, strict=False):
            tile.draw_foot(draw, left, top, room)
        top += 4 + max(tile.foot(room) for tile, room in placed) + 2 * _GAP
    return page


def _feet(task: Task, pairs: list[tuple[Any, np.ndarray]]) -> list[Tile]:
    """What stands below a task's pictures: one thing for all of them, or one below each."""
    nothing = Image.new("RGB", (1, 1))
    if hasattr(task, "point"):
        return [Tile(nothing)]
    if task.classes:
        arrays = [array for pair in pairs for array in pair if array is not None]
        seen = [*task.legend(np.concatenate([array.ravel() for array in arrays])),  # the largest of all come first
                *(entry for array in arrays for entry in task.legend(array))]
        return [Tile(nothing, legend=list(dict.fromkeys(seen)))]
    scales = [task.scale(found if truth is None else truth) for truth, found in pairs]
    return [Tile(nothing, scale=scale) for scale in (scales[:1] if len(set(scales)) == 1 else scales)]


def _placed(feet: list[Tile], width: int, across: int) -> list[tuple[Tile, int]]:
    """With the width that each may take."""
    if len(feet) > 1:
        return [(tile, width) for tile in feet]
    return [(feet[0], min(_BAR, across) if feet[0].scale else across)]


def _split(name: str) -> list[str]:
    """A long name in lines that fit at the left."""
    return [part.replace(" ", "_") for part in broken(name.replace("_", " "), _SIDE - 6)]


def _words(tasks: dict[str, Task], names: list[str], pairs: dict[str, Any], width: int) -> list[str]:
    """What is said of an image, in lines."""
    lines = []
    for name in names:
        truth, found = pairs[name]
        right = "no label" if truth is None else tasks[name].caption(truth)
        lines += broken(f"{name}: {tasks[name].caption(found)} (truth: {right})", width, 12)
    return lines
