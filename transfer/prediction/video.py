"""Reading and writing films."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageSequence

from harness.errors import UserError
from harness.images import UnreadableImage, to_rgb

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".gif"})


class Video:
    """The frames of a film, read one after the other; animated GIFs need no further library.

    Args:
        path: of the file.

    Attributes:
        count: number of frames, 0 where the file does not say.
        rate: frames per second.

    Raises:
        UserError: the library that reads films is missing.
        UnreadableImage: not a film.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count, self.rate = 0, Fraction(25)
        if path.suffix.lower() == ".gif":
            try:
                with Image.open(path) as film:
                    self.count = getattr(film, "n_frames", 1)
                    self.rate = Fraction(1000, film.info.get("duration") or 40)
            except Exception as error:  # Pillow's decoders raise nearly everything on damaged files
                raise UnreadableImage.of(str(path), error) from error
            return
        av = _library()
        try:
            with av.open(str(path)) as film:
                stream = film.streams.video[0]
                self.count, self.rate = stream.frames, Fraction(stream.average_rate or 25)
        except (av.FFmpegError, IndexError, OSError) as error:
            raise UnreadableImage.of(str(path), error) from error

    def __iter__(self) -> Iterator[np.ndarray]:
        """Frames, uint8 ``[H, W, 3]``; a film that breaks off raises :class:`UnreadableImage` there."""
        if self.path.suffix.lower() == ".gif":
            try:
                with Image.open(self.path) as film:
                    for frame in ImageSequence.Iterator(film):
                        yield np.array(to_rgb(frame.convert("RGBA")))
            except (OSError, EOFError, ValueError) as error:
                raise UnreadableImage.of(str(self.path), error) from error
            return
        av = _library()
        try:
            with av.open(str(self.path)) as film:
                for frame in film.decode(video=0):
                    yield frame.to_ndarray(format="rgb24")
        except (av.FFmpegError, OSError) as error:
            raise UnreadableImage.of(str(self.path), error) from error


class VideoWriter:
    """Writes frames of one size as an MP4 film, beside its final name until it is whole.

    Args:
        path: of the film.
        rate: frames per second.
    """

    def __init__(self, path: Path, rate: Fraction) -> None:
        self.path, self.rate = path, rate
        self._part = path.with_name(f".{path.stem}.part.mp4")
        self._film: Any = None

    def add(self, frame: np.ndarray) -> None:
        """Append a frame, uint8 ``[H, W, 3]``; an odd last row or column is left out, as the format wants it.

        Frames of another size than the first are cut, or continued in white, below and at the right.
        """
        av = _library()
        if self._film is None:
            self._size = frame.shape[0] // 2 * 2, frame.shape[1] // 2 * 2
        whole = np.full((*self._size, 3), 255, np.uint8)
        height, width = map(min, self._size, frame.shape)
        whole[:height, :width] = frame[:height, :width]
        if self._film is None:
            self._part.parent.mkdir(parents=True, exist_ok=True)
            self._film = av.open(str(self._part), "w")
            codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
            self._stream = self._film.add_stream(codec, rate=self.rate.limit_denominator(60000))
            self._stream.height, self._stream.width = self._size
            self._stream.pix_fmt = "yuv420p"
        for packet in self._stream.encode(av.VideoFrame.from_ndarray(whole, format="rgb24")):
            self._film.mux(packet)

    def close(self) -> None:
        """Finish the film; nothing happens without frames."""
        if self._film is None:
            return
        for packet in self._stream.encode():
            self._film.mux(packet)
        self._film.close()
        self._part.replace(self.path)


def can_write() -> bool:
    """Whether films can be written here."""
    from importlib.util import find_spec

    return find_spec("av") is not None


def _library() -> Any:
    try:
        import av
    except ImportError as error:
        raise UserError("films need the library PyAV, which is not installed: 'pip install av', or give single images "
                        "or an animated GIF") from error
    return av
