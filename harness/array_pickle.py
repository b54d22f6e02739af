"""Pickles of plain data and numpy arrays, read without running what they name.

A pickle names functions and calls them, and gives objects any state. Here a name stands for a stand-in of ours or is
refused, so the worst that a file can do is to be wrong. Numpy's own constructors are no way out: ``numpy.ndarray``
takes the bytes of a file for the addresses of objects, and the state of a ``numpy.dtype`` can hide that.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

_NUMBERS = re.compile(r"[<>|=]?(?:[fiub][0-9]{1,2}|\?)")


class ArrayPickleError(Exception):
    """A pickle names what is not allowed; the message names it too."""


class _Latin1:
    """Bytes in a pickle of an old protocol; ``codecs.encode`` would take any codec."""

    __slots__ = ()

    def __call__(self, text: str, encoding: str = "latin1") -> bytes:
        if encoding not in ("latin1", "latin-1"):
            raise ArrayPickleError(f"it wants the codec {encoding}, and only latin1 is allowed")
        return text.encode("latin1")


class _NdarrayName:
    """``numpy.ndarray`` as the name that it is in the arguments of others, not to be called."""

    __slots__ = ()


class _Type:
    """A type of numbers; of the state that a pickle gives it the byte order alone counts."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: np.dtype) -> None:
        self.dtype = dtype

    def __setstate__(self, state: Any) -> None:
        if state[1] not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise ArrayPickleError("it holds arrays of something else than numbers")
        self.dtype = self.dtype.newbyteorder(state[1])


class _MakeType:
    """``numpy.dtype`` for numbers; it makes a new one each time."""

    __slots__ = ()

    def __call__(self, name: str, align: bool = False, copy: bool = False) -> _Type:
        if not isinstance(name, str) or not _NUMBERS.fullmatch(name):
            raise ArrayPickleError(f"it holds an array of type {str(name)[:40]}, and only numbers are allowed")
        return _Type(np.dtype(name))


class _Array(np.ndarray):
    """An array that takes its state from a pickle, once that is sure to be numbers."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        *version, shape, kind, columns_first, content = state
        super().__setstate__((*version, shape, _checked(kind), columns_first, content))


class _Reconstruct:
    """``numpy._core.multiarray._reconstruct``: an array without state."""

    __slots__ = ()

    def __call__(self, kind: Any, shape: Any, type_code: Any) -> np.ndarray:
        return np.zeros(0, np.uint8).view(_Array)


class _FromBuffer:
    """``numpy._core.numeric._frombuffer``, how protocol 5 makes arrays."""

    __slots__ = ()

    def __call__(self, content: Any, kind: Any, shape: Any, order: str, axes: Any = None) -> np.ndarray:
        flat = np.frombuffer(content, dtype=_checked(kind))
        if order == "K" and axes is not None:
            return flat.reshape(shape).transpose(axes)
        return flat.reshape(shape, order=order)


def _checked(kind: Any) -> np.dtype:
    if not isinstance(kind, _Type):
        raise ArrayPickleError("it holds arrays of something else than numbers")
    return kind.dtype


def _allowed() -> dict[tuple[str, str], Any]:
    """What names stand for, in numpy's old and new modules."""
    found: dict[tuple[str, str], Any] = {("numpy", "ndarray"): _NdarrayName(), ("numpy", "dtype"): _MakeType(),
                                         ("_codecs", "encode"): _Latin1()}
    for core in ("numpy.core", "numpy._core"):
        found[f"{core}.multiarray", "_reconstruct"] = _Reconstruct()
        found[f"{core}.numeric", "_frombuffer"] = _FromBuffer()
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
    """The content of a pickle: plain data and numpy arrays of numbers. Bytes of Python 2 come as text (latin-1).

    Raises:
        ArrayPickleError: it names anything but numpy's arrays, or one is not of numbers.
        Exception: anything else, of a damaged file.
    """
    with open(path, "rb") as file:
        return _Unpickler(file, encoding="latin1").load()
