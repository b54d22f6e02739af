"""Draw architectures: ``python -m mtl_heads.drawing [NAME…] [--plugin FILE.py] [--output DIR]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from harness.errors import UserError
from harness.registry import load_plugin

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "images" / "architectures"


def main() -> int:
    """Write an SVG for each architecture, and the legend."""
    parser = argparse.ArgumentParser(prog="python -m mtl_heads.drawing", description="Draw architectures.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="architectures; all when none is given")
    parser.add_argument("--plugin", action="append", default=[], metavar="FILE", help="Python file with one of yours")
    parser.add_argument("--output", type=Path, default=FOLDER, metavar="DIR", help="by default the docs' images")
    arguments = parser.parse_args()
    try:
        for plugin in arguments.plugin:
            load_plugin(plugin)
        _draw(arguments.names, arguments.output)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _draw(names: list[str], folder: Path) -> None:
    from mtl_heads.build import architectures
    from mtl_heads.drawing.examples import draw
    from mtl_heads.drawing.svg import legend

    folder.mkdir(parents=True, exist_ok=True)
    for name in names or architectures():
        path = folder / f"{name}.svg"
        path.write_text(draw(name), encoding="utf-8")
        print(path, flush=True)
    (folder / "legend.svg").write_text(legend(), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
