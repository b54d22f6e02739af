"""Features on the disk, written batch after batch, so that an interrupted computation goes on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from harness.errors import UserError
from harness.files import NO_SPACE, locked

Rows = Callable[[int], Iterator[np.ndarray]]
"""``start -> batches of the rows from that number on``, float32 ``[n, C]`` each."""


def kept_features(path: Path, count: int, rows: Rows, batch_size: int) -> np.ndarray:
    """The rows of a ``.npy`` file, mapped from the disk; computed into it where it is not there, or damaged.

    Never more than a batch is in memory. Until the file is whole it is called ``.part``. What an interruption left is
    gone on with, from the beginning of a batch, so that the batches are those of a computation in one go.

    Args:
        path: of the file.
        count: its rows.
        rows: computes them.
        batch_size: how many at once.

    Returns:
        float32 ``[count, C]``, read-only.

    Raises:
        UserError: no space, quota or permission, and what ``rows`` raises.
    """
    with ExitStack() as stack:
        with _told(path):
            stack.enter_context(locked(path.with_suffix(".lock")))
        if _mapped(path) is None:
            _write(path, count, rows, batch_size)
        return _mapped(path)


def _mapped(path: Path) -> np.ndarray | None:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError):
        return None


def _write(path: Path, count: int, rows: Rows, batch_size: int) -> None:
    part = path.with_suffix(".part")
    with _told(path):
        file = open(part, "r+b" if part.exists() else "w+b")
    with file:
        with _told(path):
            done = _rows_of(file, count, batch_size)
        for batch in rows(done) if done < count else ():
            with _told(path):
                if not done:
                    np.lib.format.write_array_header_1_0(
                        file, {"descr": "<f4", "fortran_order": False, "shape": (count, batch.shape[1])})
                file.write(np.ascontiguousarray(batch, "<f4").data)
            done += len(batch)
        with _told(path):
            file.flush()
            os.fsync(file.fileno())
    with _told(path):
        os.replace(part, path)


def _rows_of(file: IO[bytes], count: int, batch_size: int) -> int:
    """How many rows a part of a file has; what follows its last whole batch is cut off."""
    try:
        np.lib.format.read_magic(file)
        (planned, channels), _, kind = np.lib.format.read_array_header_1_0(file)
        row = kind.itemsize * channels
        done = (os.fstat(file.fileno()).st_size - file.tell()) // row if planned == count else 0
    except ValueError:  # empty or damaged
        done = 0
    if done < count:
        done -= done % batch_size
    file.truncate(file.seek(file.tell() + done * row if done else 0))
    return done


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = NO_SPACE.get(error.errno, error.strerror or str(error))
        raise UserError(f"cannot keep features in {path.parent}: {reason}: free some space, give another folder in "
                        "TASKLIFT_CACHE, or take --features.cache false") from error
