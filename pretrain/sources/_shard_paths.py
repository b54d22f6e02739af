"""Which tar files are meant: paths, globs and ranges."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from harness.errors import UserError
from pretrain.sources._listing import THREADS
from pretrain.sources.base import existing_folder

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def absolute_patterns(root: str | None, shards: list[str]) -> tuple[Path, list[str]]:
    """The absolute folder that patterns are relative to, and the patterns, without ranges."""
    if root is None and not shards:
        raise UserError("data.root is not set: give the folder of the shards with --data.root DIR, or name them with "
                        "--data.shards 'DIR/train-*.tar'")
    folder = Path.cwd() if root is None else existing_folder(root).absolute()
    return folder, [name for shard in shards or ["**/*.tar"] for name in _ranges(os.path.expanduser(shard))]


def _ranges(pattern: str) -> list[str]:
    """``a-{08..11}.tar`` as four names."""
    match = _RANGE.search(pattern)
    if match is None:
        return [pattern]
    first, last, width = int(match[1]), int(match[2]), len(match[1])
    if last < first:
        raise UserError(f"data.shards {pattern} goes from {first} to {last}: write {{FIRST..LAST}}")
    names = (f"{pattern[: match.start()]}{number:0{width}d}{pattern[match.end() :]}"
             for number in range(first, last + 1))
    return [whole for name in names for whole in _ranges(name)]


def find_shards(folder: Path, patterns: Iterable[str]) -> tuple[list[str], np.ndarray, list[str]]:
    """Paths of the shards, sorted, each file once; their sizes and times, int64 ``[N, 2]``; remarks."""
    found: set[str] = set()
    for pattern in patterns:
        path = os.path.join(folder, pattern)
        if os.path.lexists(path):  # also where the name has characters that mean something in a glob
            matches = [path]
        else:
            matches = [os.path.join(folder, match) for match in glob.iglob(pattern, root_dir=folder, recursive=True)]
        found.update(os.path.normpath(match) for match in matches)
        if not matches:
            raise UserError(f"there is no shard {path}: give the tar files with --data.shards 'DIR/train-*.tar', in "
                            "quotes")
    paths = sorted(found)
    with ThreadPoolExecutor(THREADS) as pool:
        states = list(pool.map(_state, paths))
    files: dict[tuple[int, int], str] = {}
    stamps, remarks = [], []
    for path, state in zip(paths, states, strict=True):
        first = files.setdefault((state.st_dev, state.st_ino), path)
        if first == path:
            stamps.append((state.st_size, state.st_mtime_ns))
        else:
            remarks.append(f"the shard {path} is the same file as {first} and counts once")
    return list(files.values()), np.array(stamps, dtype=np.int64), remarks


def _state(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:
        raise UserError(f"cannot read the shard {path}: {error.strerror}: mend that, or leave it out of "
                        "data.shards") from error
