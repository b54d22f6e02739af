"""A picture of scenes with all their labels."""

from __future__ import annotations

import colorsys

import numpy as np
from PIL import Image, ImageDraw

from scenes.classes import ATTRIBUTES, SCENE_TYPES
from scenes.rendering import render
from scenes.rooms import generate

COLUMNS = ("image", "semseg", "depth", "normals", "edge", "saliency", "parts", "instance", "instance_center",
           "keypoints")


def panel(name: str, value: np.ndarray) -> np.ndarray:
    """A label map as colours: uint8 [H, W, 3]."""
    if name == "image":
        return value
    if name in ("semseg", "parts", "instance"):
        return _colours(max(int(value.max()) + 1, 16), dark_first=name != "semseg")[value]
    if name == "normals":
        return ((value + 1) * 127.5).astype(np.uint8)
    if name == "instance_center":
        angle = np.arctan2(value[..., 1], value[..., 0]) / (2 * np.pi) % 1
        length = np.hypot(value[..., 0], value[..., 1])
        wheel = (np.array([colorsys.hsv_to_rgb(hue / 256, 0.8, 1) for hue in range(256)]) * 255)
        near = np.minimum(length / (0.25 * value.shape[1]), 1) ** 0.5
        return (wheel[(angle * 255).astype(int)] * near[..., None]).astype(np.uint8)
    grey = value.astype(np.float32)
    if name == "depth":
        grey = 1 - (grey - grey.min()) / max(float(np.ptp(grey)), 1e-6)
    return np.repeat((np.clip(grey, 0, 1) * 255).astype(np.uint8)[..., None], 3, axis=2)


def picture(seeds: list[int], size: int = 128) -> Image.Image:
    """Rows of scenes, columns of labels, with scene type and attributes below each row.

    Args:
        seeds: one scene each.
        size: height and width of a panel, pixels.
    """
    gap, line = 4, 16
    width = len(COLUMNS) * (size + gap) + gap
    sheet = Image.new("RGB", (width, line + len(seeds) * (size + line + gap)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, name in enumerate(COLUMNS):
        draw.text((gap + column * (size + gap), 2), name, fill="black")
    for row, seed in enumerate(seeds):
        view = render(generate(seed), size, size)
        top = line + row * (size + line + gap)
        for column, name in enumerate(COLUMNS):
            sheet.paste(Image.fromarray(panel(name, view[name])), (gap + column * (size + gap), top))
        facts = [name for name, value in zip(ATTRIBUTES, view["attributes"], strict=True) if value]
        text = f"scene: {SCENE_TYPES[int(view['scene'])]}    attributes: {', '.join(facts)}"
        draw.text((gap, top + size + 2), text, fill="black")
    return sheet


def _colours(count: int, dark_first: bool) -> np.ndarray:
    values = [colorsys.hsv_to_rgb(index * 0.381966 % 1, (0.55, 0.85)[index % 2], (0.95, 0.65)[index // 2 % 2])
              for index in range(count)]
    table = (np.array(values) * 255).astype(np.uint8)
    if dark_first:
        table[0] = 25
    return table
