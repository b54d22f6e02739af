"""What a user wants predicted: files, folders and films."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import UnidentifiedImageError

from harness.errors import UserError
from harness.images import IMAGE_SUFFIXES, UnreadableImage, image_files, read_image
from transfer.prediction.video import VIDEO_SUFFIXES, Video

_NOTHING = "no image, film or folder"


@dataclass
class Picture:
    """One image to predict.

    Attributes:
        name: of the files that are written for it: a relative path without suffix.
        source: what to call it in messages.
        path: of the image file; None for a frame of a film.
        frame: the pixels of a frame.
        video: the film that the frame is of.
    """

    name: str
    source: str
    path: Path | None = None
    frame: np.ndarray | None = None
    video: Video | None = None

    def read(self) -> np.ndarray:
        """The pixels, uint8 ``[H, W, 3]``. Raises :class:`UnreadableImage`."""
        if self.frame is not None:
            return self.frame
        try:
            return read_image(self.path)
        except UnreadableImage as error:
            if isinstance(error.__cause__, UnidentifiedImageError):
                raise UnreadableImage(error.source, "not an image") from error
            raise


class Sources:
    """Everything under some paths, in order.

    Args:
        paths: images, films, and folders of images.
        every: take each so-many-th frame of films.

    Attributes:
        failed: one line for each thing that could not be read.

    Raises:
        UserError: a path is not there, a folder has no image, or there is nothing.
    """

    def __init__(self, paths: Sequence[str], every: int = 1) -> None:
        self.every, self.failed = max(1, every), []
        self._images: list[tuple[str, Path]] = []
        self._videos: list[Path] = []
        for given in paths:
            path = Path(given).expanduser()
            if path.is_dir():
                found = image_files(path)
                if not found:
                    raise UserError(f"{given}: no image in this folder (it looks for "
                                    f"{', '.join(sorted(IMAGE_SUFFIXES))})")
                self._images += [(name, path / name) for name in found]
            elif not path.exists():
                raise UserError(f"{given}: there is no such file or folder")
            elif path.suffix.lower() in VIDEO_SUFFIXES and not _is_still(path):
                self._videos.append(path)
            elif _is_image(path):
                self._images.append((path.name, path))
            else:
                self.failed.append(f"{given}: {_NOTHING}")
        if self.failed and not self._images and not self._videos:
            more = f" (nor {'is the other one' if len(paths) == 2 else f'are the other {len(paths) - 1}'})"
            raise UserError(self.failed[0] + more * (len(paths) > 1))
        self._names = _unique([name for name, _ in self._images] + [path.name for path in self._videos])

    def __len__(self) -> int:
        """How many pictures there are, as far as films say."""
        return len(self._images) + sum(map(self._frames, self._videos))

    def _frames(self, path: Path) -> int:
        try:
            return -(-Video(path).count // self.every)
        except UnreadableImage:  # said when its turn comes
            return 0

    def __iter__(self) -> Iterator[Picture]:
        for name, (_, path) in zip(self._names, self._images, strict=False):
            yield Picture(name, str(path), path)
        for name, path in zip(self._names[len(self._images):], self._videos, strict=True):
            try:
                film = Video(path)
                for number, frame in enumerate(film):
                    if number % self.every == 0:
                        yield Picture(f"{name}/{number:06d}", f"{path}, frame {number}", frame=frame, video=film)
            except UnreadableImage as error:
                self.failed.append(f"{error.source}: {error.reason}")


def _is_image(path: Path) -> bool:
    """Whether its first bytes are those of an image; an image that is damaged later is one too."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path):
                return True
    except UnidentifiedImageError:
        return False
    except Exception:  # said when its turn comes
        return True


def _is_still(path: Path) -> bool:
    """Whether a GIF is a single picture; anything damaged is left to the reader of images, which says why."""
    from PIL import Image

    if path.suffix.lower() != ".gif":
        return False
    try:
        with Image.open(path) as image:
            return getattr(image, "n_frames", 1) == 1
    except Exception:
        return True


def _unique(names: list[str]) -> list[str]:
    """Paths without suffix, or with it (``a_jpg``), and a number in the last resort, so that no two are equal."""
    bare = [str(Path(name).with_suffix("")) for name in names]
    result: list[str] = []
    taken: set[str] = set()
    for name, short in zip(names, bare, strict=True):
        choice = short if bare.count(short) == 1 else name.replace(".", "_")
        candidate, number = choice, 2
        while candidate in taken:
            candidate, number = f"{choice}_{number}", number + 1
        taken.add(candidate)
        result.append(candidate)
    return result
