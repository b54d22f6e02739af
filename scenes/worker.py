"""A process that renders a range of scenes into the cache and prints a dot for each."""

from __future__ import annotations

import sys

from scenes.dataset import render_range
from scenes.store import Store


def main(arguments: list[str]) -> None:
    """Render; arguments: folder, split, size, labels (0 or 1), start, stop."""
    folder, split, size, labels, start, stop = arguments
    wanted = bool(int(labels))
    with Store(folder, int(size), wanted).writing() as write:
        for index, fields in render_range(split, int(size), wanted, int(start), int(stop)):
            write(index, fields)
            sys.stdout.write(".")
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
