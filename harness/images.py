"""Reading any image a user may have, as RGB bytes."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".jp2"}
)
ImageFile.LOAD_TRUNCATED_IMAGES = False  # half an image is an unreadable image


class UnreadableImage(Exception):
    """One image cannot be read; ``source`` names it, ``reason`` says why."""

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"{source}: {reason}")
        self.source = source
        self.reason = reason

    @property
    def told(self) -> str:
        """For the user, where no image may be missing."""
        return f"{self.source} cannot be read ({self.reason}): get the file again"

    @classmethod
    def of(cls, source: str, error: Exception) -> UnreadableImage:
        """What a decoder's error means for an image."""
        return cls(source, str(error).split("\n")[0] or type(error).__name__)


def read_image(source: str | Path | bytes, name: str | None = None) -> np.ndarray:
    """Read an image file (or its bytes) as RGB.

    Grey, palette, CMYK, 16-bit, floating-point, transparent (laid on white) and EXIF-rotated images
    all come out as upright 8-bit RGB.

    Returns:
        uint8 array ``[height, width, 3]``, contiguous.

    Raises:
        UnreadableImage: missing, truncated, not an image, or too large to be one (Pillow's limit).
    """
    return np.array(open_image(source, name))


def open_image(source: str | Path | bytes, name: str | None = None) -> Image.Image:
    """:func:`read_image`, as a Pillow image in mode ``RGB``."""
    name = name or (str(source) if not isinstance(source, bytes) else "image in memory")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
                return decode_image(image)
    except Exception as error:  # Pillow's decoders raise nearly everything on damaged files
        raise UnreadableImage.of(name, error) from error


def decode_image(image: Image.Image) -> Image.Image:
    """An image that Pillow has opened, decoded: upright, in mode ``RGB``. Raises what Pillow's decoders raise."""
    image.load()
    return to_rgb(ImageOps.exif_transpose(image))


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode to 8-bit RGB."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":  # 16-bit grey, 32-bit integers, floats
        values = np.asarray(image).astype(np.float64)
        values = np.where(np.isfinite(values), values, 0)
        top = 65535.0 if image.mode != "F" else (1.0 if values.max(initial=0) <= 1 else 255.0)
        grey = np.clip(values * (255.0 / top), 0, 255).round().astype(np.uint8)
        return Image.fromarray(grey, "L").convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def image_files(root: str | Path) -> list[str]:
    """Paths of the images under ``root``, relative to it, sorted; links are followed, cycles not."""
    found: list[str] = []
    seen: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            folders[:] = []
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        base = os.path.relpath(folder, root)
        for name in files:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
                found.append(name if base == "." else os.path.join(base, name))
    return sorted(found)
