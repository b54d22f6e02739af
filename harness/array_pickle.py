"""Pickles of plain data and numpy arrays, read without running what they name.

A pickle names functions and calls them. Here a name stands for numpy's ways to make an array or is refused,
so the worst that a file can do is to be wrong.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np


class ArrayPickleError(Exception):
    """A pickle names what is not allowed; the message names it too."""


class _Latin1:
    """Bytes in a pickle of an old protocol; ``codecs.encode`` would take any codec."""

    __slots__ = ()

    def __call__(self, text: str, encoding: str = "latin1") -> bytes:
        if encoding not in ("latin1", "latin-1"):
            raise ArrayPickleError(f"it wants the codec {encoding}, and only latin1 is allowed")
        return text.encode("latin1")


def _allowed() -> dict[tuple[str, str], Any]:
    """Names that stand for numpy's own constructors, in its old and new modules."""
    array = np.zeros(1, np.float32)
    rebuild, from_buffer = array.__reduce__()[0], array.__reduce_ex__(5)[0]
    found: dict[tuple[str, str], Any] = {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype,
                                         ("_codecs", "encode"): _Latin1()}
    for core in ("numpy.core", "numpy._core"):
        found[f"{core}.multiarray", "_reconstruct"] = rebuild
        found[f"{core}.numeric", "_frombuffer"] = from_buffer
    return found


class _Unpickler(pickle.Unpickler):
    _names = _allowed()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._names:
            raise ArrayPickleError(f"it wants to run {module}.{name}, and no code from a file is ever run")
        return self._names[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise ArrayPickleError("it refers to objects outside of it")


def read_pickle(path: str | Path) -> Any:
    """The content of a pickle: plain data and numpy arrays. Bytes of Python 2 come as text (latin-1).

    Raises:
        ArrayPickleError: it names anything but numpy's arrays.
        Exception: anything else, of a damaged file.
    """
    with open(path, "rb") as file:
        return _Unpickler(file, encoding="latin1").load()
