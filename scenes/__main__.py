"""``python -m scenes --picture FILE``: look at scenes and their labels."""

from __future__ import annotations

import argparse

from scenes.picture import picture


def main() -> None:
    """Write a picture of some scenes with all labels."""
    parser = argparse.ArgumentParser(prog="python -m scenes", description=main.__doc__)
    parser.add_argument("--picture", required=True, metavar="FILE", help="PNG to write")
    parser.add_argument("--seeds", type=int, nargs="+", default=[17, 9, 15, 38], help="scenes to show")
    parser.add_argument("--size", type=int, default=128, help="height and width of a panel, pixels")
    options = parser.parse_args()
    picture(options.seeds, options.size).save(options.picture, optimize=True)
    print(f"wrote {options.picture}")


if __name__ == "__main__":
    main()
