"""Subsets of a set of images.

    python -m pretrain.manifests uniform  IMAGES --size N --output FILE.txt [--seed S]
    python -m pretrain.manifests longtail IMAGES --size N --output FILE.txt [--seed S] [--alpha A] [--minimum M]
                                          [--maximum M]
    python -m pretrain.manifests random   IMAGES --size N --output FILE.txt [--seed S]

Then pretrain on it with ``--data.name list --data.manifest FILE.txt --data.root IMAGES``.
"""

from __future__ import annotations

import argparse

from harness.program import run_program
from pretrain.manifests.classes import fingerprint, read_classes
from pretrain.manifests.files import write_subset
from pretrain.manifests.subsets import Subset, longtail_subset, random_subset, uniform_subset


def main() -> int:
    """The command."""
    options = _parser().parse_args()
    classes = read_classes(options.images)
    subset = _subset(options, classes)
    written = write_subset(subset, options.output, fingerprint(classes))
    counts = sorted(subset.counts.values(), reverse=True)
    print(f"{len(subset.images)} of {sum(subset.available.values())} images, {len(counts)} classes of {counts[0]} to "
          f"{counts[-1]} images\nwrote {', '.join(map(str, written))}")
    return 0


def _subset(options: argparse.Namespace, classes: dict[str, list[str]]) -> Subset:
    if options.kind == "uniform":
        return uniform_subset(classes, options.size, options.seed)
    if options.kind == "longtail":
        return longtail_subset(classes, options.size, options.alpha, options.minimum, options.maximum, options.seed)
    return random_subset(classes, options.size, options.seed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pretrain.manifests", description=__doc__.split("\n")[0])
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="uniform|longtail|random")
    for kind, what in (("uniform", "as many images of every class"),
                       ("longtail", "images of every class, their counts by a Pareto law"),
                       ("random", "any of the images, whatever their classes")):
        one = kinds.add_parser(kind, help=what, description=f"Write a list of images: {what}.")
        one.add_argument("images", metavar="IMAGES", help="folder of class folders, or a text file with one path a "
                         "line (the class is the path's first folder, or follows after a tab)")
        one.add_argument("--size", type=int, required=True, metavar="N", help="images in all")
        one.add_argument("--output", required=True, metavar="FILE", help="the list to write; the counts (.counts.csv), "
                         "how it was made (.json) and a drawing (.png) come beside it")
        one.add_argument("--seed", type=int, default=0, metavar="S", help="of what is taken (0)")
        if kind == "longtail":
            one.add_argument("--alpha", type=float, default=6.0, metavar="A",
                             help="power of the law; smaller: longer tail (6)")
            one.add_argument("--minimum", type=int, default=5, metavar="M", help="images of the smallest class (5)")
            one.add_argument("--maximum", type=int, metavar="M", help="images of the largest class (not limited)")
    return parser


if __name__ == "__main__":
    run_program(main)
