"""Where the images of many shards are, kept from one start to the next."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from harness.progress import progress
from pretrain.sources._index_file import IndexFile
from pretrain.sources._listing import THREADS
from pretrain.sources._tar_index import TarIndex, index_tar
from pretrain.sources.base import Paths


def index_shards(paths: list[str], stamps: np.ndarray, extensions: list[str], file: IndexFile) -> list[TarIndex]:
    """Where the images of each shard are; read by several threads, but for shards that have not changed since.

    Args:
        paths: of the shards.
        stamps: their sizes and times of modification (nanoseconds), int64 ``[N, 2]``.
        extensions: see :func:`index_tar`.
        file: where the index is kept.

    Raises:
        UserError: a shard cannot be read at all.
    """
    with file.alone(), ThreadPoolExecutor(THREADS) as pool:
        kept = _unpacked(file.read())
        known: dict[tuple[str, int, int], TarIndex] = {}
        keys = [(path, *stamp) for path, stamp in zip(paths, stamps.tolist(), strict=True)]
        for key in keys:
            if key in kept:
                known[key] = kept[key]
        missing = [key for key in keys if key not in known]
        try:
            with progress(len(missing), unit="shard", description="index the shards", leave=False, delay=1) as bar:
                read = pool.map(partial(index_tar, extensions=extensions), [key[0] for key in missing])
                for key, tar in zip(missing, read, strict=True):
                    known[key] = tar
                    bar.update()
        finally:
            if known.keys() != kept.keys():  # also when it is stopped half-way
                file.write(**_packed(known))
    return [known[key] for key in keys]


def _packed(known: dict[tuple[str, int, int], TarIndex]) -> dict[str, np.ndarray]:
    text, ends = Paths(key[0] for key in known).arrays()
    stamps = np.array([key[1:] for key in known], dtype=np.int64).reshape(-1, 2)
    facts = np.array([(len(tar.offsets), tar.damage, tar.without) for tar in known.values()], dtype=np.int64)
    images = [np.concatenate([np.zeros(0, np.int64), *column]) for column in
              ([tar[number] for tar in known.values()] for number in range(3))]
    return {"paths": text, "path_ends": ends, "stamps": stamps, "facts": facts.reshape(-1, 3),
            "offsets": images[0], "lengths": images[1], "labels": images[2]}


def _unpacked(kept: dict[str, np.ndarray]) -> dict[tuple[str, int, int], TarIndex]:
    if not kept:
        return {}
    paths = Paths.from_arrays(kept["paths"], kept["path_ends"])
    cuts = np.cumsum(kept["facts"][:, 0])[:-1]
    columns = zip(*(np.split(kept[name], cuts) for name in ("offsets", "lengths", "labels")), strict=True)
    return {(path, *stamp): TarIndex(*images, *facts[1:]) for path, stamp, images, facts in
            zip(paths, kept["stamps"].tolist(), columns, kept["facts"].tolist(), strict=True)}
