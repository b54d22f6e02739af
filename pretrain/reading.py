"""Checkpoint files, read without running anything that is in them."""

from __future__ import annotations

import os
import re
import zipfile
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from safetensors import SafetensorError, safe_open
from torch.serialization import safe_globals

from harness.checkpoint import load_file
from harness.errors import UserError
from pretrain.array_pickle import ArrayPickleError, load_arrays
from pretrain.formats.base import CheckpointError, Loaded

# How files of torch before 1.6 begin: a pickled constant.
_OLD_TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_HINT = "fetch it or write it again"


def read_file(path: Path) -> Loaded:
    """The top level of a checkpoint file.

    Tensors of safetensors files and of torch's zip files are mapped: what nobody looks at (queues, optimizers,
    momentum encoders) is never read from the disk. Files of torch before 1.6 have to be read whole.

    Args:
        path: of the file; what it is shows in its first bytes, not in its name.

    Raises:
        CheckpointError: damaged, cut off, no checkpoint, or wanting anything but tensors, plain data and
            ``argparse.Namespace``; the message names what it wanted, and nothing of it was run.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(len(_OLD_TORCH))
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    if path.suffix == ".safetensors" or start[8:9] == b"{":
        return _read_safetensors(path)
    mapped = start[:2] == b"PK"
    if not mapped and start != _OLD_TORCH and (start[:1] == b"\x80" or path.suffix == ".pkl"):
        return _read_arrays(path)
    with safe_globals([Namespace]):
        content = _read_torch(path, mapped)
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a checkpoint: give a state dict")
    return Loaded(path, content, kind="torch" if mapped else "torch before 1.6, read whole")


def _read_torch(path: Path, mapped: bool) -> Any:
    try:
        if mapped:
            _check_zip(path)
        return load_file(path, mmap=mapped)
    except CheckpointError:
        raise
    except Exception as error:  # a hostile file can make the reader stumble anywhere
        if isinstance(error, UserError) and isinstance(error.__cause__, UnpicklingError):
            raise CheckpointError(_refusal(path, error)) from error
        raise CheckpointError(f"checkpoint {path} is damaged, cut off, or not a checkpoint "
                              f"({_reason(error.__cause__ or error)}): {_HINT}") from error


def _check_zip(path: Path) -> None:
    """Refuse packed members: torch writes none, mapping would take the packed bytes for numbers, and a small file
    could unpack to any size.

    Raises:
        CheckpointError: a member is packed, or claims more bytes than the file has.
    """
    size = os.path.getsize(path)
    with zipfile.ZipFile(path) as file:
        for member in file.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                raise CheckpointError(f"checkpoint {path} is refused: its part {member.filename!r} is compressed, and "
                                      "torch writes none so: write it again with torch.save")
            if member.file_size > size or member.compress_size > size:
                raise CheckpointError(f"checkpoint {path} is damaged or cut off (its part {member.filename!r} claims "
                                      f"{member.file_size} bytes of {size}): {_HINT}")


def _refusal(path: Path, error: UserError) -> str:
    """The class or function that a file wanted; for what is stranger than that, what torch says of it."""
    if "wants to run" in str(error):
        return str(error)
    said = re.search(r"WeightsUnpickler error: *(.+)", str(error.__cause__))
    return (f"checkpoint {path} is refused: it holds something else than tensors and plain data"
            f"{f' ({_reason(said[1])})' if said else ''}, or is cut off: {_HINT}")


def _read_safetensors(path: Path) -> Loaded:
    try:
        with safe_open(path, framework="pt") as file:
            return Loaded(path, {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {},
                          "safetensors")
    except (SafetensorError, OSError, RuntimeError, ValueError, TypeError, OverflowError, MemoryError) as error:
        raise CheckpointError(f"cannot read {path}: damaged, cut off, or no safetensors file ({_reason(error)}): "
                              f"{_HINT}") from error


def _read_arrays(path: Path) -> Loaded:
    try:
        content = load_arrays(path)
    except ArrayPickleError as error:
        raise CheckpointError(f"checkpoint {path} is refused: {error}") from error
    except Exception as error:
        raise CheckpointError(f"checkpoint {path} is damaged, cut off, or not a checkpoint ({_reason(error)}): "
                              f"{_HINT}") from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a checkpoint: give a state dict")
    return Loaded(path, content, kind="pickled arrays, read whole")


def _reason(error: BaseException | str) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:160].rstrip(" .:")
