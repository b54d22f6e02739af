"""What a folder holds: samples of each split, labels of each task, and a picture of some."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from harness.errors import UserError
from harness.progress import progress
from harness.seeding import numpy_generator
from transfer.data._folder import FolderSplit, some
from transfer.data.base import DataSet, Sample, Split
from transfer.tasks.base import Task

PANEL = 128
"""Height of a panel of the picture, pixels."""
_GAP, _LINE = 4, 14


def table(data: DataSet) -> list[str]:
    """Lines of text: how many samples and labels each split has.

    Args:
        data: all of its tasks are counted.
    """
    rows = [["", *data.splits]]
    splits = {name: data.split(name) for name in data.splits}
    rows.append(["samples", *(str(len(split)) for split in splits.values())])
    for task, label in data.labels.items():
        counts = [_count(split, task) for split in splits.values()]
        kind = "" if label.task == task else f" ({label.task})"
        classes = f", {len(label.classes)} classes" if len(label.classes) > 1 else ""
        rows.append([f"{task}{kind}{classes}", *("" if count is None else str(count) for count in counts)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) if place == 0 else cell.rjust(width)
                      for place, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip() for row in rows]


def _count(split: Split, task: str) -> int | None:
    """Labels of a task in a split; None where it cannot be told without reading them."""
    sizes = getattr(split, "sizes", None)
    return None if sizes is None else sizes.get(task, 0)


def some_samples(data: DataSet, count: int, seed: int = 0) -> list[Sample]:
    """The first sample of each split and random ones, ``count`` in all or one of each split.

    Raises:
        UserError: one of them cannot be read.
    """
    splits = [data.split(name) for name in data.splits]
    chosen: list[Sample] = []
    for place, split in enumerate(splits):
        share = max(1, count // len(splits) + (place < count % len(splits)))
        draw = numpy_generator(seed, "check", place).permutation(len(split) - 1)[: share - 1] + 1
        chosen += [split[int(index)] for index in (0, *np.sort(draw))]
    return chosen


def read_all(data: DataSet) -> list[str]:
    """Read every sample.

    Returns:
        What a user should know of labels that hold nothing.

    Raises:
        UserError: the first that cannot be read, or how many cannot.
    """
    wrong: list[str] = []
    empty: dict[tuple[str, str], list[str]] = {}
    counts: Counter[tuple[str, str]] = Counter()
    splits: dict[str, Split] = {name: data.split(name) for name in data.splits}
    with progress(sum(map(len, splits.values())), description="read", leave=False) as bar:
        for name, split in splits.items():
            for index in range(len(split)):
                try:
                    sample = split[index]
                    check_sample(sample, data)
                    for task, target in sample["targets"].items():
                        counts[task, name] += 1
                        if (np.asarray(target) == data.tasks[task].ignored).all():
                            empty.setdefault((task, name), []).append(_file(split, task, index) or sample["id"])
                except UserError as error:
                    wrong.append(str(error))
                bar.update()
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise UserError(f"{wrong[0]}{more}")
    return [f"{len(files)} of {counts[task, split]} labels of task {task} in split {split} have no known "
            f"{'pixel' if data.tasks[task].dense else 'value'}: {some(files)}"
            for (task, split), files in empty.items()]


def _file(split: Split, task: str, index: int) -> str | None:
    """Where a label was read from, in a folder of files."""
    return split.files[task][index] if isinstance(split, FolderSplit) and task in split.files else None


def check_sample(sample: Sample, data: DataSet) -> None:
    """Raises UserError where a label does not fit its image."""
    for name, target in sample["targets"].items():
        task = data.tasks[name]
        if np.asarray(target).shape != task.target_shape(*sample["image"].shape[:2]):
            raise UserError(f"sample {sample['id']}: the label of task '{name}' has shape {np.asarray(target).shape}, "
                            f"which does not fit an image of {sample['image'].shape[0]}×{sample['image'].shape[1]}")


def grid(samples: Sequence[Sample], tasks: dict[str, Task]) -> Image.Image:
    """A row for each sample: the image, the label of each task with a value for each pixel, the others in words."""
    dense = [name for name, task in tasks.items() if task.dense]
    widths = [round(PANEL * sample["image"].shape[1] / sample["image"].shape[0]) for sample in samples]
    width = max([*widths, 96])
    columns = ["image", *dense]
    words = any(not task.dense for task in tasks.values())
    height = PANEL + _GAP + _LINE * (2 if words else 1)
    sheet = Image.new("RGB", (_GAP + len(columns) * (width + _GAP), _LINE + len(samples) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for place, name in enumerate(columns):
        draw.text((_GAP + place * (width + _GAP), 1), name, fill="black")
    for row, sample in enumerate(samples):
        top = _LINE + row * height
        image = sample["image"]
        panels = {"image": np.repeat(image, 3, 2) if image.shape[2] == 1 else image}
        for name in dense:
            if name in sample["targets"]:
                target = sample["targets"][name]
                panels[name] = tasks[name].picture(np.asarray(target, tasks[name].dtype), None)
        for place, name in enumerate(columns):
            left = _GAP + place * (width + _GAP)
            if name in panels:
                picture = Image.fromarray(np.ascontiguousarray(panels[name]))
                sheet.paste(picture.resize((widths[row], PANEL), Image.Resampling.NEAREST if name != "image" else
                                           Image.Resampling.BILINEAR), (left, top))
            else:
                draw.text((left, top + PANEL // 2), "no label", fill="gray")
        facts = [f"{name}: {tasks[name].caption(np.asarray(target))}" for name, target in sample["targets"].items()
                 if not tasks[name].dense]
        draw.text((_GAP, top + PANEL), sample["id"], fill="black")
        if facts:
            draw.text((_GAP, top + PANEL + _LINE - 2), "   ".join(facts)[: sheet.width // 5], fill="gray")
    return sheet
