"""Pickles of numpy arrays, as Detectron2 and Caffe2 exchange weights, as tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.array_pickle import ArrayPickleError, read_pickle

__all__ = ["ArrayPickleError", "load_arrays"]


def load_arrays(path: Path) -> Any:
    """The content of a pickle, its arrays as tensors.

    Args:
        path: of the file.

    Raises:
        ArrayPickleError: it names anything but numpy's arrays.
        Exception: anything else, of a damaged file.
    """
    return _tensors(read_pickle(path))


def _tensors(value: Any) -> Any:
    """A nest of mappings (two levels are all that files have) with tensors for arrays of numbers."""
    if isinstance(value, Mapping):
        return {key: _tensors(entry) if not isinstance(entry, Mapping) else
                {name: _tensor(item) for name, item in entry.items()} for key, entry in value.items()}
    return _tensor(value)


def _tensor(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        value = value.astype(value.dtype.newbyteorder("="), copy=False)
        own = value.flags.writeable and value.flags.c_contiguous
        return torch.from_numpy(np.asarray(value) if own else np.array(value))
    return value
