"""Files that are never half written, and locks that a crash releases."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from harness.errors import UserError

NO_SPACE = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up",
            errno.EFBIG: "the file-size limit is reached"}
#: What a file system says that is mounted without locks, as clusters have them.
NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}


def write_atomically(path: str | Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, flush it to the disk, then rename it.

    A reader sees the old file or the new one, never a part; after any failure the old file stays.

    Raises:
        UserError: no space, quota or permission; the message names the path.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes the file private
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException as error:
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary)
        if isinstance(error, OSError):
            reason = NO_SPACE.get(error.errno, error.strerror or str(error))
            kept = "; the file that was there before is unchanged" if path.exists() else ""
            raise UserError(f"cannot write {path}: {reason}{kept}. Free some space or choose "
                            "another --output, then start the same command again") from error
        raise


@contextmanager
def folder_atomically(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside ``path`` to be filled, which is renamed to it at the end; after any failure it is gone.

    An empty folder of that name gives way.

    Raises:
        UserError: no space, quota or permission; the message names the path.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
        yield temporary
        temporary.chmod(0o777 & ~_umask())  # mkdtemp makes the folder private
        os.replace(temporary, path)
    except OSError as error:
        reason = NO_SPACE.get(error.errno, error.strerror or str(error))
        raise UserError(f"cannot write {path}: {reason}: choose another folder, or free some space") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def file_digests(path: str | Path, kinds: Iterable[str]) -> dict[str, str]:
    """Hexadecimal digests of a file's bytes by kind (``sha256``, ``md5``, …), all from one reading."""
    found = {kind: hashlib.new(kind) for kind in kinds}
    with open(path, "rb") as file:
        while part := file.read(2**20):
            for digest in found.values():
                digest.update(part)
    return {kind: digest.hexdigest() for kind, digest in found.items()}


def cache_folder() -> Path:
    """Where things are kept that can be made again: ``$TASKLIFT_CACHE`` or ``~/.cache/tasklift``."""
    return Path(os.environ.get("TASKLIFT_CACHE") or Path.home() / ".cache" / "tasklift").expanduser()


def remove_leftovers(*folders: Path) -> None:
    """Remove temporary files of :func:`write_atomically` that a kill left in ``folders``."""
    for folder in folders:
        for path in folder.glob(".*.tmp"):
            with suppress(OSError):
                path.unlink()


def write_text(path: str | Path, text: str) -> None:
    """Atomic write of UTF-8 text."""
    write_atomically(path, lambda file: file.write(text.encode()))


@contextmanager
def locked(path: str | Path, *, wait: bool = True, held: str = "") -> Iterator[None]:
    """Hold an exclusive lock on the file ``path``; the system frees it when the process dies.

    On a file system without locks nobody is kept away.

    Raises:
        UserError: ``wait`` is false and somebody else holds it; the message is ``held``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(str(path))
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout as error:
        raise UserError(held or f"{path} is locked by another process") from error
    except NotImplementedError:
        pass
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    try:
        yield
    finally:
        lock.release()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # some file systems cannot
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
