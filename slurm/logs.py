"""Showing a log while it is written."""

from __future__ import annotations

import codecs
import sys
from pathlib import Path
from typing import TextIO


class Tail:
    """Prints what is added to a file.

    Args:
        path: the file, which need not be there yet.
        output: where to print.
    """

    def __init__(self, path: Path, output: TextIO | None = None) -> None:
        self.path, self._output = path, output or sys.stdout
        self._read = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a letter may be written in two parts

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
            self._output.write(self._decoder.decode(new))
            self._output.flush()
