"""Where the indices of sources are kept, so that millions of files are not listed at every start."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import numpy as np

from harness.errors import UserError
from harness.files import cache_folder, locked, write_atomically


class IndexFile:
    """Named arrays in one file of the user's cache.

    What cannot be read or written is made again at the next start: no index is worth an error.

    Args:
        kind: of the index, a part of the file's name.
        of: what it is the index of; another file for each.
        version: of the arrays; those of another version do not count.
    """

    def __init__(self, kind: str, of: tuple[str, ...], version: int = 1) -> None:
        text = "\0".join((str(version), *of))
        digest = hashlib.blake2b(os.fsencode(text), digest_size=10).hexdigest()
        self.path = cache_folder() / "indices" / f"{kind}-{digest}.npz"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Others that want the same index wait, and then find it. Where locks do not work they make it too."""
        with ExitStack() as stack:
            with suppress(OSError, NotImplementedError):
                stack.enter_context(locked(self.path.with_suffix(".lock")))
            yield

    def read(self) -> dict[str, np.ndarray]:
        """The arrays, or nothing."""
        try:
            with np.load(self.path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except Exception:  # zipfile, zlib and numpy raise nearly everything on a damaged file
            return {}

    def write(self, **arrays: np.ndarray) -> None:
        """Keep the arrays."""
        try:
            write_atomically(self.path, lambda file: np.savez(file, **arrays))
        except UserError as error:
            reason = str(error).split(". Free some space")[0]
            print(f"note: the list of images is not kept for the next start ({reason}); set TASKLIFT_CACHE to a "
                  "folder that can be written", file=sys.stderr)
