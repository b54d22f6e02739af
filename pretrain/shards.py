"""A folder of images as shards: tar files in WebDataset's layout, which the source ``shards`` reads.

    python -m pretrain.shards FOLDER DIR [--per-shard N] [--seed S]
"""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import IO

from harness.errors import UserError
from harness.files import folder_atomically, write_atomically
from harness.program import run_program
from harness.progress import progress
from harness.sampling import shuffled
from pretrain.sources import SOURCES

PER_SHARD = 1000
_SAID = 5
"""Files left out that are named."""


def pack(folder: str | Path, target: str | Path, per_shard: int = PER_SHARD,
         seed: int = 0) -> tuple[list[Path], int, str]:
    """Write all images below a folder to ``train-0000.tar``, …, shuffled, their bytes as they are.

    The same images and seed give the same bytes. The folder of the shards appears whole or not at all.

    Args:
        folder: of the images, at any depth.
        target: folder to make; it must not exist, or be empty.
        per_shard: images in each shard; the last has the rest.
        seed: of the order.

    Returns:
        The shards, how many images are in them, and what was left out (empty files, what cannot be read), in words.

    Raises:
        UserError: no images, ``target`` is there already, or it cannot be written.
    """
    if per_shard < 1:
        raise UserError(f"--per-shard is {per_shard}: set it to 1 or more")
    target = Path(target).expanduser()
    if target.is_file() or target.is_dir() and any(target.iterdir()):
        raise UserError(f"{target} is there already: choose another folder, or remove it")
    if not os.path.isdir(os.path.expanduser(folder)):
        raise UserError(f"the folder {folder} does not exist: give the folder of the images")
    source = SOURCES.get("folder")(root=str(folder))
    remarks, left_out = source.remarks(), []
    paths = [source.paths[number] for number in shuffled(len(source), seed, 0).tolist()]
    with folder_atomically(target) as temporary:
        with progress(len(paths), unit="image", description="pack", leave=False, delay=1) as bar:
            shards = _write_all(temporary, _images(Path(source.root), paths, left_out, bar.update), per_shard)
        if not shards:
            raise UserError(f"no image in {folder} can be read ({left_out[-1]}): nothing was written")
    more = [f"and {len(left_out) - _SAID} more"] if len(left_out) > _SAID else []
    return sorted(target.glob("*.tar")), len(paths) - len(left_out), "; ".join([*remarks, *left_out[:_SAID], *more])


def _images(root: Path, paths: Iterable[str], left_out: list[str],
            done: Callable[[], object]) -> Iterator[tuple[str, bytes]]:
    """Name in the shard and bytes of each image that has any."""
    taken: set[str] = set()
    for path in paths:
        done()
        try:
            content = (root / path).read_bytes()
        except OSError as error:
            left_out.append(f"{path} cannot be read ({error.strerror})")
            continue
        if not content:
            left_out.append(f"{path} is empty")
            continue
        yield _member(path, taken), content


def _member(path: str, taken: set[str]) -> str:
    """A name whose key, all up to the first dot of the file's name, no other image has, whatever the case."""
    above, name = os.path.split(path)
    stem, extension = os.path.splitext(name)
    key = "/".join(part.replace(".", "_") for part in (*above.split("/"), stem) if part)
    key = re.sub(r"[\0-\x1f]", "_", key)
    number, free = 1, key
    while free.casefold() in taken:
        number += 1
        free = f"{key}-{number}"
    taken.add(free.casefold())
    return free + extension.lower()


def _write_all(folder: Path, images: Iterator[tuple[str, bytes]], per_shard: int) -> int:
    """How many shards there are now; images are read one at a time."""
    number = 0
    for first in images:
        rest = chain([first], islice(images, per_shard - 1))
        write_atomically(folder / f"train-{number:04d}.tar", partial(_write, images=rest))
        number += 1
    return number


def _write(file: IO[bytes], images: Iterable[tuple[str, bytes]]) -> None:
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in images:
            member = tarfile.TarInfo(name)  # no time, no owner: the same images are the same bytes
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m pretrain.shards",
        description="Pack all images below a folder into shards (tar files in WebDataset's layout), shuffled.")
    parser.add_argument("folder", metavar="FOLDER", help="of the images, at any depth")
    parser.add_argument("target", metavar="DIR", help="folder to make, with train-0000.tar, … in it")
    parser.add_argument("--per-shard", type=int, default=PER_SHARD, metavar="N",
                        help=f"images in a shard ({PER_SHARD})")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the order (0)")
    options = parser.parse_args()
    shards, count, left_out = pack(options.folder, options.target, options.per_shard, options.seed)
    size = sum(shard.stat().st_size for shard in shards) / 1e6
    if left_out:
        print(f"note: left out: {left_out}", file=sys.stderr)
    print(f"packed {count} images into {len(shards)} shards, {size:.1f} MB: {shards[0]}"
          + (f" to {shards[-1].name}" if len(shards) > 1 else "")
          + f"\npretrain on them with --data.name shards --data.root {options.target}")
    return 0


if __name__ == "__main__":
    run_program(main)
