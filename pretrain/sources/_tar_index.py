"""Where each image lies in a tar file: byte offset and length, found by reading headers alone."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from harness.errors import UserError

_BLOCK = 512
_PADDING = 2**20
"""More zeros than this at the end are no padding but a part of the file that never arrived."""
_COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZ": "bunzip2", b"\xfd7": "unxz", b"\x28\xb5": "unzstd"}
_KEY = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)", re.DOTALL)
"""A sample's key, which is all up to the first dot of the file's name, and the rest, which says what of it this is."""
_LONGEST_LABEL = 20
_LONGEST_HEADER = 2**20
"""Bytes; names and extended headers are far shorter."""


class TarIndex(NamedTuple):
    """The images of one shard, in its order.

    Attributes:
        offsets: first byte of each image, int64 ``[n]``.
        lengths: its bytes, int64 ``[n]``.
        labels: its class, int64 ``[n]``; -1 where the sample has none.
        damage: byte at which the rest of the shard cannot be read; -1 if all can.
        without: samples that have no image.
    """

    offsets: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    damage: int
    without: int


def index_tar(path: str | Path, extensions: Sequence[str]) -> TarIndex:
    """Read the headers of a tar file in WebDataset's layout.

    Members that follow one another and share all of their path up to the first dot of the file name are
    one sample (``a/0001.jpg``, ``a/0001.cls``). Its image is the first member whose extension is wanted.

    Args:
        path: of the file.
        extensions: wanted ones, lower case, without the first dot: ``jpg`` takes ``1.jpg`` and not ``1.left.jpg``.

    Returns:
        What is whole. What follows a damaged header, and a member that the file's end cuts, are not.

    Raises:
        UserError: the file cannot be opened, is compressed, or changes while it is read.
    """
    try:
        with open(path, "rb", buffering=0) as file:  # a buffer would read far more than headers
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            before = os.fstat(file.fileno())
            magic = file.read(2)
            if magic in _COMPRESSED:
                raise UserError(f"the shard {path} is compressed, and images can only be found in plain tar files: "
                                f"unpack it with {_COMPRESSED[magic]}")
            file.seek(0)
            found = _read_headers(file, before.st_size, frozenset(extensions))
            after = os.stat(path)
    except OSError as error:
        raise UserError(f"cannot read the shard {path}: {error.strerror}: mend that, or leave it out of "
                        "data.shards") from error
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise UserError(f"the shard {path} changes while it is read: start again when it is complete")
    return found


def _read_headers(file, size: int, extensions: frozenset[str]) -> TarIndex:
    images: list[tuple[int, int, int]] = []
    key, complete, without = None, True, 0  # of the sample that members are being added to

    try:
        tar = tarfile.TarFile(fileobj=_Headers(file), mode="r", errorlevel=0)
    except tarfile.TarError:
        return _packed(images, 0, 0)
    label, damage, position = -1, -1, -1
    while True:
        try:
            member = tar.next()
        except (tarfile.TarError, ValueError, OverflowError):
            damage = min(tar.offset, size)
            break
        tar.members.clear()  # it would keep them all
        if member is None:
            damage = _end(file, tar.offset, size)
            break
        if tar.offset <= position or member.size < 0:  # a header that leads back would be read for ever
            damage = member.offset
            break
        position = tar.offset
        if member.offset_data + member.size > size and member.isreg():
            damage = member.offset
            break
        match = _KEY.fullmatch(member.name)
        if match is None or not member.isreg() or member.issparse():
            continue
        name, extension = match[1], match[2].lower()
        if name != key:
            without += not complete
            key, complete, label = name, False, -1
        if extension in extensions and not complete:
            images.append((member.offset_data, member.size, label))
            complete = True
        elif extension == "cls" and member.size <= _LONGEST_LABEL:
            label = _label(file, member)
            if complete and images:
                images[-1] = (*images[-1][:2], label)
    if damage < 0:
        without += not complete  # the rest of a sample that is cut is in the tail that is reported
    return _packed(images, damage, without)


class _Headers:
    """A file whose readers get headers and no more: a long name or an extended header may claim any length.

    Args:
        file: opened, without a buffer.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, length: int = -1) -> bytes:
        """At most so many bytes.

        Raises:
            tarfile.ReadError: more were asked for than any header has.
        """
        if not 0 <= length <= _LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {length} bytes")
        return self._file.read(length)


def _packed(images: list[tuple[int, int, int]], damage: int, without: int) -> TarIndex:
    columns = np.array(images, dtype=np.int64).reshape(-1, 3)
    return TarIndex(*(np.ascontiguousarray(column) for column in columns.T), damage, without)


def _end(file, offset: int, size: int) -> int:
    """-1 if a tar file ends at ``offset`` as it should, with zeros alone; else where the damage begins."""
    file.seek(offset)
    rest = file.read(_PADDING + 1)
    return -1 if _BLOCK <= len(rest) <= _PADDING and rest.count(0) == len(rest) else min(offset, size)


def _label(file, member: tarfile.TarInfo) -> int:
    file.seek(member.offset_data)
    try:
        return int(file.read(member.size))
    except ValueError:
        return -1
