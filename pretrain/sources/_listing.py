"""All images below a folder, listed once: later only folders that changed are listed again.

Adding, removing or renaming an entry changes the times of its folder and of no other. So the index
keeps the times of every folder, and at the next start asks for those alone: a thousand questions
instead of a million for class folders of ImageNet's size.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from harness.errors import UserError
from harness.images import IMAGE_SUFFIXES
from harness.progress import progress
from pretrain.sources._index_file import IndexFile
from pretrain.sources.base import Paths

THREADS = 16
"""Network disks answer many questions at once; local ones do not mind."""
SETTLED = 2.0
"""Seconds after which a change to a folder is sure to change its times again (their steps are that coarse)."""
_NO_STAMP = (0, 0, 0)


class _Folder(NamedTuple):
    """What is known of one folder.

    Attributes:
        stamp: inode and times of last change; all zero when the folder is to be listed again.
        identity: device and inode, the same for all ways to the folder.
        folders: names of the folders in it, sorted.
        images: names of the images in it.
    """

    stamp: tuple[int, int, int]
    identity: tuple[int, int]
    folders: list[str]
    images: list[str]


def list_images(root: Path, below: Sequence[str] = ("",)) -> tuple[Paths, list[str]]:
    """Paths of the images below a folder, relative to it, sorted; hidden ones are left out.

    Links are followed, and a folder is listed once however many ways lead to it. The list is kept in the
    user's cache.

    Args:
        root: the folder.
        below: its folders to look into, relative to it, at any depth; the empty one is all of it.

    Returns:
        The paths, and remarks about folders that cannot be read.

    Raises:
        UserError: one of ``below`` cannot be read.
    """
    index = IndexFile("folder", (os.path.realpath(root), *below))
    with index.alone(), ThreadPoolExecutor(THREADS) as pool:
        kept = index.read()
        if kept:
            paths = Paths.from_arrays(kept["paths"], kept["path_ends"])
            folders = Paths.from_arrays(kept["folders"], kept["folder_ends"])
            stamps = np.array(list(pool.map(lambda folder: _stamp(root, folder), folders)), dtype=np.int64)
            if kept["stamps"].any(axis=1).all() and np.array_equal(stamps, kept["stamps"]):
                return paths, []
            known = _known(paths, folders, kept["stamps"])
        else:
            known = {}
        tree, remarks = _walk(root, below, known, pool)
        paths = Paths(sorted(_join(folder, name) for folder, found in tree.items() for name in found.images))
        text, ends = paths.arrays()
        names, name_ends = Paths(tree).arrays()
        stamps = np.array([found.stamp for found in tree.values()], dtype=np.int64).reshape(-1, 3)
        now = {"paths": text, "path_ends": ends, "folders": names, "folder_ends": name_ends, "stamps": stamps}
        if not all(name in kept and np.array_equal(kept[name], array) for name, array in now.items()):
            index.write(**now)
    return paths, remarks


def _walk(root: Path, below: Iterable[str], known: dict[str, _Folder],
          pool: ThreadPoolExecutor) -> tuple[dict[str, _Folder], list[str]]:
    """All folders, a level at a time, so that the shortest of several ways to one counts."""
    tree: dict[str, _Folder] = {}
    seen: set[tuple[int, int]] = set()
    unreadable: list[str] = []
    level = list(below)
    with progress(None, description=f"list {root}", leave=False, delay=1) as bar:
        while level:
            found = pool.map(lambda folder: _visit(root, folder, known.get(folder)), level)
            deeper: list[str] = []
            for folder, entry in zip(level, found, strict=True):
                parent = os.path.dirname(folder)
                if isinstance(entry, OSError):
                    if folder in below:
                        raise UserError(f"the folder {root / folder} cannot be read ({entry.strerror}): give yourself "
                                        "the right to read it, or choose another --data.root")
                    unreadable.append(f"{root / folder} ({entry.strerror})")
                    _distrust(tree, parent)
                elif entry.identity in seen:
                    _distrust(tree, parent)  # if the other way to it goes, this one is to be found
                else:
                    seen.add(entry.identity)
                    tree[folder] = entry
                    deeper += [_join(folder, name) for name in entry.folders]
                    bar.update(len(entry.images))
            level = deeper
    if not unreadable:
        return tree, []
    which = unreadable[0] if len(unreadable) == 1 else f"{len(unreadable)} folders, the first being {unreadable[0]}"
    return tree, [f"left out what cannot be read: {which}"]


def _visit(root: Path, folder: str, known: _Folder | None) -> _Folder | OSError:
    """List a folder, unless its times are those that are known."""
    path = os.path.join(root, folder)
    try:
        status = os.stat(path)
        stamp, identity = _stamp_of(status), (status.st_dev, status.st_ino)
        if known is not None and known.stamp == stamp:
            return known._replace(identity=identity)
        settled = max(status.st_mtime, status.st_ctime) < time.time() - SETTLED
        folders, images = [], []
        with os.scandir(path) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith("."):
                    continue
                try:
                    is_folder = entry.is_dir()
                except OSError:
                    is_folder = False
                if is_folder:
                    folders.append(name)
                elif os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
                    images.append(name)
                elif entry.is_symlink() and not os.path.exists(entry.path):
                    settled = False  # a disk may be mounted there later, which changes no time here
        return _Folder(stamp if settled else _NO_STAMP, identity, sorted(folders), images)
    except OSError as error:
        return error


def _known(paths: Paths, folders: Paths, stamps: np.ndarray) -> dict[str, _Folder]:
    """The folders of an index."""
    known = {folder: _Folder(tuple(stamp), (0, 0), [], [])
             for folder, stamp in zip(folders, stamps.tolist(), strict=True)}
    for folder in known:
        parent, name = os.path.split(folder)
        if folder and parent in known:
            known[parent].folders.append(name)
    for path in paths:
        parent, name = os.path.split(path)
        known[parent].images.append(name)
    for folder in known.values():
        folder.folders.sort()
    return known


def _stamp(root: Path, folder: str) -> tuple[int, int, int]:
    try:
        return _stamp_of(os.stat(os.path.join(root, folder)))
    except OSError:
        return _NO_STAMP


def _stamp_of(status: os.stat_result) -> tuple[int, int, int]:
    """Copying tools set back the time of modification; the time of change cannot be set."""
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns


def _distrust(tree: dict[str, _Folder], folder: str) -> None:
    if folder in tree:
        tree[folder] = tree[folder]._replace(stamp=_NO_STAMP)


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
