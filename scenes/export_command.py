"""The command that writes scenes in a published layout; programs that read such layouts have it."""

from __future__ import annotations

import argparse
from typing import Any

NAME = "export-scenes"


def add_export_command(commands: Any) -> None:
    """Add it to the sub-commands of a program.

    Args:
        commands: from ``ArgumentParser.add_subparsers``.
    """
    parser = commands.add_parser(NAME, help="write the built-in scenes in the layout of a data set")
    parser.add_argument("--as", dest="layout", required=True, metavar="NAME")
    parser.add_argument("folder")
    parser.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="of the images, pixels")
    for split in ("train", "val", "test"):
        parser.add_argument(f"--{split}", type=int, metavar="N", help=f"samples of split {split}, where it has one")


def run_export_command(options: argparse.Namespace) -> int:
    """Write them, and say where and what the format loses."""
    from scenes.export import LAYOUTS, export

    given = {split: getattr(options, split) for split in ("train", "val", "test")}
    counts = {split: count for split, count in given.items() if count is not None}
    folder = export(options.layout, options.folder, counts, tuple(options.size) if options.size else None, bar=True)
    print(f"wrote {folder} (lost: {LAYOUTS.get(options.layout).quantisation})")
    return 0
