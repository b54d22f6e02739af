"""What a set of labelled images holds: counts, whether images and labels can be read, and a picture of some."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from harness.errors import UserError
from harness.images import UnreadableImage
from harness.progress import progress
from pretrain.evaluation.colours import class_colours
from pretrain.evaluation.labelled import Labelled, LabelledImages, Video
from pretrain.evaluation.spread import spread

PANEL = 128
"""Height of a picture's panels, pixels."""
_GAP, _LINE = 4, 14


def table(data: Labelled) -> list[str]:
    """Lines of text: images of each split, and how many of each class or attribute there are.

    Args:
        data: any set.
    """
    rows = [["split", "images", *(_HEADINGS[kind] for kind in data.names if kind in _COUNTS)]]
    for name in data.splits:
        images = data.split(name)
        counts = [_COUNTS[kind](images, data.names[kind]) for kind in data.names if kind in _COUNTS]
        role = " (learnt from)" if name == data.learn else " (measured)" if name == data.test else ""
        rows.append([f"{name}{role}", str(len(images)), *counts])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines = lines if data.splits else []
    if "mask" in data.names:
        lines.append(f"masks of {len(data.names['mask'])} classes")
    if "video" in data.names:
        videos = data.videos()
        lines.append(f"{len(videos)} videos of {sum(map(len, videos))} frames")
    return lines


def _classes(images: LabelledImages, names: Sequence[str]) -> str:
    counts = np.bincount(images.classes(), minlength=len(names))
    return f"{len(names)} with {counts.min()} to {counts.max()} images" + (
        f", {np.sum(counts == 0)} of them with none" if (counts == 0).any() else "")


def _attributes(images: LabelledImages, names: Sequence[str]) -> str:
    values = images.attributes()
    shown = (values == 1).sum(0)
    difficult = f", {np.sum(values == -1)} difficult labels" if (values == -1).any() else ""
    return f"{len(names)} in {shown.min()} to {shown.max()} images{difficult}"


_HEADINGS = {"class": "classes", "attributes": "attributes"}
_COUNTS = {"class": _classes, "attributes": _attributes}


def read(data: Labelled, chosen: Mapping[str, Sequence[int]] | None, frames: int | None = None) -> None:
    """Read images and masks, and frames of videos with their objects.

    Args:
        data: any set.
        chosen: numbers of images by split; all when none.
        frames: how many of each video; all when none.

    Raises:
        UserError: some cannot be read; the message has the first and their number.
    """
    chosen = chosen or {split: range(len(data.split(split))) for split in data.splits}
    videos = [(video, spread(len(video), len(video) if frames is None else frames))
              for video in (data.videos() if "video" in data.names else ())]
    total = sum(map(len, chosen.values())) + sum(len(numbers) for _, numbers in videos)
    wrong: list[str] = []
    with progress(total, description="read", leave=False, delay=1) as bar:
        for reading in _readings(data, chosen, videos):
            try:
                reading()
            except UnreadableImage as error:
                wrong.append(error.told)
            except UserError as error:
                wrong.append(str(error))
            bar.update()
    if wrong:
        raise UserError(wrong[0] + (f" ({len(wrong) - 1} more cannot be used)" if len(wrong) > 1 else ""))


def _readings(data: Labelled, chosen: Mapping[str, Sequence[int]],
              videos: Sequence[tuple[Video, Sequence[int]]]) -> Iterator[Callable[[], object]]:
    for split, numbers in chosen.items():
        images = data.split(split)
        for number in numbers:
            yield lambda images=images, number=number: (
                images.image(number), images.mask(number) if "mask" in data.names else None)
    for video, numbers in videos:
        for number in numbers:
            yield lambda video=video, number=number: (video.frame(number), video.objects(number))


def grid(data: Labelled, chosen: Mapping[str, Sequence[int]]) -> Image.Image:
    """A row of images for each split, with their labels below them.

    Args:
        data: any set of images.
        chosen: numbers of images by split, which can be read.
    """
    rows = [(split, data.split(split), numbers) for split, numbers in chosen.items()]
    masks = "mask" in data.names
    lines = [kind for kind in ("class", "attributes") if kind in data.names]
    height = _LINE + PANEL * (2 if masks else 1) + _LINE * (1 + 2 * ("attributes" in lines)) + 2 * _GAP
    panels = [[_panels(images, number, len(data.names["mask"]) if masks else 0) for number in numbers]
              for _, images, numbers in rows]
    width = _GAP + max(sum(max(panel[0].width, PANEL) + _GAP for panel in row) for row in panels)
    sheet = Image.new("RGB", (width, height * len(rows)), "white")
    draw = ImageDraw.Draw(sheet)
    for place, ((split, images, numbers), row) in enumerate(zip(rows, panels, strict=True)):
        top, left = place * height, _GAP
        hint = " (?: difficult to recognise)" if "attributes" in lines else ""
        draw.text((left, top + 1), f"{split}: {len(images)} images{hint}", fill="black")
        classes = images.classes() if "class" in lines else None
        values = images.attributes() if "attributes" in lines else None
        for number, pictures in zip(numbers, row, strict=True):
            space = max(pictures[0].width, PANEL)
            for level, picture in enumerate(pictures):
                sheet.paste(picture, (left, top + _LINE + level * PANEL))
            below = top + _LINE + len(pictures) * PANEL + 1
            if classes is not None:
                draw.text((left, below), _fit(data.names["class"][classes[number]], space), fill="black")
                below += _LINE
            if values is not None:
                names = [name + ("?" if value < 0 else "")
                         for name, value in zip(data.names["attributes"], values[number], strict=True) if value]
                for line in _wrapped(names, space)[:2]:
                    draw.text((left, below), line, fill="gray")
                    below += _LINE
            left += space + _GAP
    return sheet


def _panels(images: LabelledImages, number: int, classes: int) -> list[Image.Image]:
    """An image and its mask, if there are any classes of it, at the panels' height."""
    picture = Image.fromarray(images.image(number))
    size = (max(1, round(PANEL * picture.width / picture.height)), PANEL)
    found = [picture.resize(size, Image.Resampling.BICUBIC)]
    if classes:
        mask = Image.fromarray(class_colours(classes)[images.mask(number)])
        found.append(mask.resize(size, Image.Resampling.NEAREST))
    return found


def _fit(text: str, space: int) -> str:
    """As much of a text as fits."""
    letters = space // 6
    return text if len(text) <= letters else f"{text[: letters - 1]}…"


def _wrapped(words: Sequence[str], space: int) -> list[str]:
    """Words in lines that fit."""
    lines = [""]
    for word in words:
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and len(longer) > space // 6:
            lines.append(_fit(word, space))
        else:
            lines[-1] = _fit(longer, space)
    return lines
