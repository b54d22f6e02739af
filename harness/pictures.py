"""Images whose size is known before their pixels are decoded.

Who knows which part of an image is wanted, and how small, can have a large JPEG decoded at a reduced scale.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from harness.images import UnreadableImage, decode_image, open_image

REDUCTIONS = (8, 4, 2)
"""Scales that libjpeg can decode at: it computes fewer pixels of each block of 8×8, from its low frequencies."""
_ORIENTATION = 0x0112


class Picture:
    """An image whose pixels are there.

    Args:
        pixels: uint8 ``[height, width, 3]``.

    Attributes:
        height: in pixels.
        width: in pixels.
    """

    def __init__(self, pixels: np.ndarray) -> None:
        self.height, self.width = pixels.shape[:2]
        self._pixels = pixels

    def decode(self, reduction: int = 1) -> np.ndarray:
        """The pixels.

        Args:
            reduction: what the caller could do with: 1, or one of :data:`REDUCTIONS`. Pictures that cannot be
                decoded at a reduced scale come at their own size.

        Returns:
            uint8 ``[height, width, 3]``, both divided by the reduction and rounded up where it was heeded.

        Raises:
            UnreadableImage: the pixels are damaged.
        """
        return self._pixels


class JpegPicture(Picture):
    """A JPEG of which only the header was read.

    At full scale torchvision decodes it, which gives what Pillow gives in three quarters of the time. Whatever
    torchvision refuses is left to Pillow, which then also says why it cannot be read.

    Args:
        content: of the file.
        name: what to call it in messages.
        width: of the upright image, in pixels.
        height: of the upright image, in pixels.
    """

    def __init__(self, content: bytes, name: str, width: int, height: int) -> None:
        self.height, self.width = height, width
        self._content, self._name = content, name

    def decode(self, reduction: int = 1) -> np.ndarray:
        """The pixels; see :meth:`Picture.decode`."""
        if reduction == 1:
            pixels = _decode_at_once(self._content)
            return np.asarray(open_image(self._content, self._name)) if pixels is None else pixels
        try:
            with Image.open(io.BytesIO(self._content)) as image:
                image.draft("RGB", (self.width // reduction, self.height // reduction))
                return np.asarray(decode_image(image))
        except Exception as error:  # Pillow's decoders raise nearly everything on damaged files
            raise UnreadableImage.of(self._name, error) from error


def read_picture(source: str | Path | bytes, name: str | None = None) -> Picture:
    """An image file, or its bytes, as a picture; see :func:`harness.images.read_image` for what it may be.

    Upright JPEGs in colour or grey are decoded later, everything else now.

    Raises:
        UnreadableImage: missing, damaged, not an image, or too large to be one.
    """
    name = name or (str(source) if not isinstance(source, bytes) else "image in memory")
    try:
        content = source if isinstance(source, bytes) else Path(source).read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)) as image:
                if image.format == "JPEG" and image.mode in ("RGB", "L") and _is_upright(image):
                    return JpegPicture(content, name, *image.size)
                return Picture(np.asarray(decode_image(image)))
    except Exception as error:  # as above
        raise UnreadableImage.of(name, error) from error


def _is_upright(image: Image.Image) -> bool:
    return image.getexif().get(_ORIENTATION, 1) == 1


def _decode_at_once(content: bytes) -> np.ndarray | None:
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    try:
        pixels = decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), mode=ImageReadMode.RGB)
    except (RuntimeError, AttributeError):  # the latter where torchvision was built without its decoders
        return None
    return pixels.permute(1, 2, 0).numpy()
