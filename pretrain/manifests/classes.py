"""Which images there are, and their classes."""

from __future__ import annotations

import os
from pathlib import Path

from harness.errors import UserError
from pretrain.sources import SOURCES
from pretrain.sources.base import Paths

NO_CLASS = "."
"""The class of images that lie in no folder."""


def read_classes(images: str | Path) -> dict[str, list[str]]:
    """Paths of the images of each class.

    Args:
        images: a folder, or a text file with one path a line. The first folder on an image's path is its class; in
            a text file the class may also follow the path, after a tab.

    Returns:
        The paths of each class, sorted, by the class's name; the classes sorted by name.

    Raises:
        UserError: there are no images, or one is named twice, or its name cannot stand in a list.
    """
    path = Path(images).expanduser()
    if path.is_dir():
        entries = [(name, _first_folder(name)) for name in SOURCES.get("folder")(root=str(path)).paths]
    elif path.is_file():
        entries = [_entry(line) for line in _lines(path)]
    else:
        raise UserError(f"there is no {path}: give a folder of images, or a list of their paths")
    if not entries:
        raise UserError(f"the list {path} names no images: write one path a line")
    classes: dict[str, list[str]] = {}
    for name, label in entries:
        if "\n" in name or name != name.strip(" \t\r"):
            raise UserError(f"the image {name!r} cannot be named in a list (one path a line): rename it")
        classes.setdefault(label, []).append(name)
    if len({name for name, _ in entries}) < len(entries):
        seen: set[str] = set()
        twice = next(name for name, _ in entries if name in seen or seen.add(name))
        raise UserError(f"the list {path} names {twice} more than once: keep one of its lines")
    return {label: sorted(classes[label], key=os.fsencode) for label in sorted(classes, key=os.fsencode)}


def fingerprint(classes: dict[str, list[str]]) -> str:
    """A short text that is the same exactly when the images and their classes are."""
    lines = [f"{label}\t{name}" for label, names in classes.items() for name in names]
    return f"classes-{len(classes)}-{len(lines)}-{Paths(lines).digest()}"


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise UserError(f"cannot read the list {path}: {error.strerror}: give a list that you may read") from error
    return [line for line in text.split("\n") if line.strip(" \t\r")]


def _entry(line: str) -> tuple[str, str]:
    name, tab, label = line.strip(" \r").partition("\t")
    name, label = name.strip(" "), label.strip(" \t")
    return name, label if tab and label else _first_folder(name)


def _first_folder(name: str) -> str:
    folder, slash, _ = name.removeprefix("./").partition("/")
    return folder if slash and folder else NO_CLASS
