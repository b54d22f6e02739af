"""Rendering scenes into a layout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness.errors import UserError, closest
from harness.files import folder_atomically
from harness.progress import progress
from scenes.dataset import SPLIT_SEEDS, seed_of
from scenes.export.base import LAYOUTS
from scenes.rendering import render
from scenes.rooms import generate


def export(name: str, folder: str | Path, counts: Mapping[str, int] | None = None,
           size: tuple[int, int] | None = None, bar: bool = False) -> Path:
    """Write scenes as the data set ``name`` is published. The same arguments give the same files.

    Everything is written beside ``folder`` and renamed at the end, so that it is never there in part.

    Args:
        name: of the layout.
        folder: where to; new or empty.
        counts: samples of each of the layout's splits; a few when none.
        size: height and width, pixels; the layout's own when none.
        bar: show a progress bar.

    Returns:
        The folder.

    Raises:
        UserError: an unknown layout or split, a folder that holds something, a full disk.
    """
    kind = LAYOUTS.get(name)
    wanted = {split: kind.counts[split] for split in kind.splits} | dict(counts or {})
    for split, count in wanted.items():
        if split not in kind.splits:
            raise UserError(f"layout '{name}' has no split '{split}'{closest(split, kind.splits)}: it has "
                            f"{', '.join(kind.splits)}")
        if not 1 <= count <= SPLIT_SEEDS:
            raise UserError(f"cannot write {count} samples of split {split}: choose 1 or more")
    height, width = size or kind.size
    if min(height, width) < 16:
        raise UserError(f"cannot write scenes of {height}×{width} pixels: choose 16 or more")
    target = Path(folder).expanduser()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} holds something: give a new folder")
    with folder_atomically(target) as temporary:
        layout = kind(temporary)
        with progress(sum(wanted.values()), unit="scene", description=f"write {name}", enabled=bar) as shown:
            for split in kind.splits:
                for number in range(wanted[split]):
                    scene = generate(seed_of(split, number))
                    layout.write(split, number, render(scene, height, width), scene)
                    shown.update()
        layout.finish()
    return target
