"""The command that writes scenes in a published layout; programs that read such layouts have it."""

from __future__ import annotations

import argparse
from typing import Any

from harness.errors import UserError, closest

NAME = "export-scenes"


def add_export_command(commands: Any) -> None:
    """Add it to the sub-commands of a program.

    Args:
        commands: from ``ArgumentParser.add_subparsers``.
    """
    parser = commands.add_parser(NAME, help="write the built-in scenes in the layout of a data set", add_help=False,
                                 description="Write the built-in scenes in the layout of a data set.")
    parser.add_argument("-h", "--help", action=_Help, nargs=0, help="show this help message and exit")
    parser.add_argument("--as", dest="layout", required=True, metavar="NAME", help="a layout of the list below")
    parser.add_argument("folder", help="where to; new or empty")
    parser.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="of the images, pixels")
    for split in ("train", "val", "test"):
        parser.add_argument(f"--{split}", type=int, metavar="N", help=f"samples of split {split}, where it has one")


def run_export_command(options: argparse.Namespace) -> int:
    """Write them, and say where and what the format loses."""
    from scenes.export import LAYOUTS, export

    name, names = options.layout, LAYOUTS.names()
    if name not in names:
        raise UserError(f"unknown layout '{name}'{_near(name, names)}: choose one of {', '.join(names)}")
    kind = LAYOUTS.get(name)
    given = {split: getattr(options, split) for split in ("train", "val", "test")}
    counts = {split: count for split, count in given.items() if count is not None}
    for split in [split for split in counts if split not in kind.splits]:
        print(f"layout {name} has no split {split} (it has {', '.join(kind.splits)}): --{split} is left out")
        del counts[split]
    folder = export(name, options.folder, counts, tuple(options.size) if options.size else None, bar=True)
    print(f"wrote {folder} (lost: {kind.quantisation})")
    return 0


class _Help(argparse.Action):
    """Help with all layouts, which are not looked for before it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from scenes.export import LAYOUTS

        kinds = {name: LAYOUTS.get(name) for name in LAYOUTS.names()}
        width = max(map(len, kinds))
        print(parser.format_help() + "\nlayouts, the size and the samples that are written by default:")
        for name, kind in kinds.items():
            counts = ", ".join(f"{split} {kind.counts[split]}" for split in kind.splits)
            print(f"  {name:{width}}  {'×'.join(map(str, kind.size)):>7}  {counts}")
        parser.exit()


def _near(name: str, names: list[str]) -> str:
    """The layout that was probably meant: nearer than for other names, since many data sets have no layout."""
    begun = [known for known in names if name and (known.startswith(name) or name.startswith(known))]
    return closest(name, begun) or closest(name, names, 0.8)
