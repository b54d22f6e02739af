"""Tar files of many images each, in WebDataset's layout."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache

import numpy as np

from harness.errors import UserError
from harness.images import IMAGE_SUFFIXES, UnreadableImage
from harness.seeding import numpy_generator
from pretrain.sources._index_file import IndexFile
from pretrain.sources._shard_index import index_shards
from pretrain.sources._shard_paths import absolute_patterns, find_shards
from pretrain.sources._tar_index import TarIndex
from pretrain.sources.base import SOURCES, Source

_OPEN = 64
"""Shards that a worker keeps open: far below what a process may have."""
_SAID = 5


@SOURCES.register("shards")
class Shards(Source):
    """Images in tar files as WebDataset writes them: members 0001.jpg, 0001.cls, … are one sample.

    The headers of all shards are read once, by several threads, and kept in the user's cache by each
    shard's size and time of modification. From then on an image is a number like that of any file, read
    with one request to its shard. So an epoch is a permutation of all images of all shards, whatever
    their sizes, and which process or worker reads an image never matters.

    Args:
        root: the folder that ``shards`` are relative to.
        shards: paths, globs (``train-*.tar``, ``**/*.tar``) or ranges (``train-{0000..0146}.tar``, of which
            all must be there) of plain tar files; by default all below ``root``.
        extensions: of the members that are images, of which a sample's first one counts; those of all
            kinds of images by default.
        labels: take the class from the sample's .cls member, a number; for statistics only.
        window: 0: an epoch is one shuffle of all images. N: shards are shuffled, and images within N
            shards at a time; for disks that are slow to seek, where N shards fit in memory as cache.
    """

    def __init__(self, root: str | None = None, shards: list[str] | str | None = None,
                 extensions: list[str] | None = None, labels: bool = False, window: int = 0) -> None:
        if window < 0:
            raise UserError(f"data.window must be 0 (shuffle all images) or a number of shards, not {window}")
        wanted = sorted({suffix.lower().lstrip(".") for suffix in extensions or IMAGE_SUFFIXES})
        folder, patterns = absolute_patterns(root, [shards] if isinstance(shards, str) else shards or [])
        self.window = window
        self.shards, self._stamps, self._remarks = find_shards(folder, patterns)
        self.folder = os.path.commonpath([os.path.dirname(shard) for shard in self.shards])
        kept = IndexFile("shards", (str(folder), *patterns, "", *wanted))
        tars = index_shards(self.shards, self._stamps, wanted, kept)
        self._ends = np.cumsum([len(tar.offsets) for tar in tars], dtype=np.int64)
        self._offsets = np.concatenate([tar.offsets for tar in tars])
        self._lengths = np.concatenate([tar.lengths for tar in tars])
        self._labels = np.concatenate([tar.labels for tar in tars]) if labels else None
        self._remarks += self._damages(tars)
        if not len(self):
            what = f": {self._remarks[0]}" if self._remarks else ""
            raise UserError(f"the {len(tars)} shards in {self.folder} hold no image with one of the extensions "
                            f"{', '.join(wanted)}{what}. Set --data.extensions to those of the members")
        self._open = lru_cache(_OPEN)(self._open_shard)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def encoded(self, number: int) -> bytes:
        """The image's bytes, read from its shard.

        Raises:
            UnreadableImage: the shard cannot be read, or has changed since the start.
        """
        shard = self._shard_of(number)
        try:
            try:
                content = self._read(shard, number)
            except OSError:  # a network disk may have forgotten the open file
                self._open.cache_clear()
                content = self._read(shard, number)
        except OSError as error:
            raise UnreadableImage(self.name(number), error.strerror or str(error)) from error
        if len(content) < self._lengths[number]:
            raise UnreadableImage(self.name(number), "the shard ends within it")
        return content

    def name(self, number: int) -> str:
        """The shard, and the image's first byte in it."""
        return f"{self._short(self._shard_of(number))} at byte {self._offsets[number]}"

    def label(self, number: int) -> int | None:
        """The number in the sample's .cls member, if asked for."""
        return None if self._labels is None else int(self._labels[number])

    def labels(self) -> np.ndarray | None:
        """:meth:`label` of all images."""
        return self._labels

    def fingerprint(self) -> str:
        """Hash of the shards' names and of where the images are: moved shards are the same source."""
        digest = hashlib.blake2b(digest_size=8)
        for shard in range(len(self.shards)):
            digest.update(os.fsencode(self._short(shard)) + b"\0")
        for array in (self._ends, self._offsets, self._lengths):
            digest.update(array)
        return f"shards-{len(self)}-{digest.hexdigest()}"

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """One shuffle, or shuffled shards with a shuffle in each window; see :meth:`Source.order`."""
        if not self.window:
            return super().order(seed, epoch)
        generator = numpy_generator(seed, "order", epoch)
        starts = np.concatenate([[0], self._ends[:-1]])
        shards = generator.permutation(len(self.shards))
        windows = [shards[first : first + self.window] for first in range(0, len(shards), self.window)]
        return np.concatenate([
            generator.permutation(np.concatenate([np.arange(starts[shard], self._ends[shard]) for shard in window]))
            for window in windows])

    def remarks(self) -> list[str]:
        """Damaged shards, with the byte from which on their images are lost, and samples without an image."""
        return self._remarks

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name != "_open"}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._open = lru_cache(_OPEN)(self._open_shard)

    def _shard_of(self, number: int) -> int:
        if not 0 <= number < len(self):
            raise IndexError(number)
        return int(np.searchsorted(self._ends, number, side="right"))

    def _short(self, shard: int) -> str:
        return os.path.relpath(self.shards[shard], self.folder)

    def _open_shard(self, shard: int) -> _OpenFile:
        return _OpenFile(self.shards[shard], tuple(self._stamps[shard].tolist()))

    def _read(self, shard: int, number: int) -> bytes:
        return self._open(shard).read(int(self._offsets[number]), int(self._lengths[number]))

    def _damages(self, tars: list[TarIndex]) -> list[str]:
        damaged = [
            f"the shard {self.shards[shard]} is truncated or damaged at byte {tar.damage} of {self._stamps[shard][0]}: "
            f"the {len(tar.offsets)} images before that are used"
            for shard, tar in enumerate(tars) if tar.damage >= 0]
        if len(damaged) > _SAID:
            damaged[_SAID - 1 :] = [f"{damaged[_SAID - 1]}; and {len(damaged) - _SAID} more shards are damaged"]
        without = sum(tar.without for tar in tars)
        return damaged + ([f"{without} samples of the shards have no image and are left out"] if without else [])


class _OpenFile:
    """A file to read parts of, closed when nobody uses it any more.

    Args:
        path: the file.
        expected: size and time of modification (nanoseconds) that it must have.

    Raises:
        OSError: it cannot be opened, or is not as expected.
    """

    def __init__(self, path: str, expected: tuple[int, int]) -> None:
        self._descriptor = -1
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        status = os.fstat(self._descriptor)
        if (status.st_size, status.st_mtime_ns) != expected:
            raise OSError(0, "the shard has changed since this program started")

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from ``offset`` on; fewer than ``length`` where the file ends."""
        content = os.pread(self._descriptor, length, offset)
        while len(content) < length:  # some network disks give less than was asked for
            more = os.pread(self._descriptor, length - len(content), offset + len(content))
            if not more:
                break
            content += more
        return content

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
