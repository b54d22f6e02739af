"""The idx format, which MNIST and its successors are published in."""

from __future__ import annotations

import functools
import gzip
import hashlib
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from harness.errors import UserError

#: Files of images and of labels, by split, as they are published (each with or without ``.gz``).
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_UNSIGNED_BYTE = 0x08


def read_idx(path: str | Path, dimensions: int | None = None) -> np.ndarray:
    """The array of an idx file, packed with gzip or not (told by its content, whatever it is called).

    Args:
        path: the file.
        dimensions: how many it should have: 3 for images, 1 for labels; any when none.

    Returns:
        uint8, read-only.

    Raises:
        UserError: it cannot be read, is no idx file of unsigned bytes, or has another length than its header says.
    """
    try:
        content = Path(path).read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error or type(error).__name__}): get the file again") from error
    if len(content) < 4 or content[:2] != b"\0\0" or not content[3]:
        raise UserError(f"{path} is no idx file: it begins with {content[:4].hex(' ') or 'nothing'}, not with 00 00, "
                        "a type and a number of dimensions: get the file again")
    kind, count = content[2], content[3]
    if kind != _UNSIGNED_BYTE:
        raise UserError(f"{path} holds numbers of idx type {kind:#04x}: images and labels are unsigned bytes "
                        f"({_UNSIGNED_BYTE:#04x})")
    if dimensions is not None and count != dimensions:
        raise UserError(f"{path} has {count} dimensions, and {dimensions} are needed: are images and labels mixed up?")
    start = 4 + 4 * count
    if len(content) < start:
        raise UserError(f"{path} ends within its header of {start} bytes: get the file again")
    shape = struct.unpack(f">{count}I", content[4:start])
    expected = start + functools.reduce(lambda a, b: a * b, shape, 1)
    if len(content) != expected:
        what = "is truncated" if len(content) < expected else "is too long"
        raise UserError(f"{path} {what}: {len(content)} bytes, and its header says {expected}: get the file again")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


class IdxFolder:
    """Where the four files of a data set are.

    Args:
        name: of the data set, for messages.
        root: the folder, or one that has it as ``raw`` or ``<title>/raw`` (torchvision's layout); the first of
            ``places`` that has the files when none.
        title: what torchvision calls the data set.
        places: folders to look in when no root is given.
        hint: where the files can be had, for the message.

    Raises:
        UserError: a file is missing; the message says which.
    """

    def __init__(self, name: str, root: str | None, title: str, places: Iterable[str], hint: str) -> None:
        self.name = name
        roots = [Path(root).expanduser()] if root is not None else [Path(place).expanduser() for place in places]
        folders = [folder for one in roots for folder in (one, one / "raw", one / title / "raw")]
        found = {folder: {stem: path for stem in _stems() if (path := _file(folder, stem))} for folder in folders}
        best = max(folders, key=lambda folder: len(found[folder]))
        missing = [stem for stem in _stems() if stem not in found[best]]
        if missing:
            lacks = f"{best} lacks {', '.join(missing)} (or with .gz)" if found[best] or root is not None else \
                f"there are no idx files in {', '.join(map(str, roots))}"
            raise UserError(f"{name}: {lacks}: {hint}, or give their folder with --data.root")
        self.folder, self.files = best, found[best]

    def read(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Images ``[N, H, W]`` and labels ``[N]`` of ``train`` or ``test``, uint8.

        Raises:
            UserError: a file is damaged, or there is not one label for each image.
        """
        images, labels = (self.files[stem] for stem in FILES[split])
        pictures, classes = read_idx(images, 3), read_idx(labels, 1)
        if len(pictures) != len(classes):
            raise UserError(f"{self.name}: {images} has {len(pictures)} images and {labels} {len(classes)} labels: get "
                            "both files again")
        if len(classes) and classes.max() > 9:
            raise UserError(f"{self.name}: {labels} has label {classes.max()}: there are classes 0 to 9")
        return pictures, classes

    def fingerprint(self) -> str:
        """A digest of the files' content."""
        whole = hashlib.blake2b(digest_size=6)
        for stem in _stems():
            state = self.files[stem].stat()
            whole.update(_digest(self.files[stem], state.st_size, state.st_mtime_ns))
        return whole.hexdigest()


def _stems() -> list[str]:
    return [stem for pair in FILES.values() for stem in pair]


def _file(folder: Path, stem: str) -> Path | None:
    """The file of that name, unpacked or not; also with a dot before ``idx``, as some have it."""
    for name in (stem, stem.replace("-idx", ".idx")):
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    return None


@functools.lru_cache(maxsize=16)
def _digest(path: Path, size: int, changed: int) -> bytes:
    return hashlib.blake2b(path.read_bytes()).digest()
