"""Showing a log while it is written."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TextIO


class Tail:
    """Prints what is added to a file.

    Args:
        path: the file, which need not be there yet.
        output: where to print.
        skip: leave out what is there already.
    """

    def __init__(self, path: Path, output: TextIO | None = None, skip: bool = False) -> None:
        self.path, self._output = path, output or sys.stdout
        self._read = path.stat().st_size if skip and path.exists() else 0

    def show(self) -> None:
        """What is new."""
        try:
            with open(self.path, "rb") as file:
                file.seek(self._read)
                new = file.read()
        except OSError:
            return
        self._read += len(new)
        if new:
            self._output.write(new.decode(errors="replace"))
            self._output.flush()
