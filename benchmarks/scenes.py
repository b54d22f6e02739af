"""Scenes per second of the built-in data set, as a first use of it renders them.

    python -m benchmarks.scenes [--count 2000] [--size 128]
"""

from __future__ import annotations

import argparse
import tempfile
import time

from harness.seeding import available_cores
from scenes import Scenes, generate, render


def main() -> None:
    """Time generation, rendering in one process, and filling an empty cache on all cores."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--size", type=int, default=128)
    options = parser.parse_args()
    few = min(options.count, 100)
    generate(0)
    start = time.perf_counter()
    scenes = [generate(seed) for seed in range(few)]
    print(f"generate            {few / (time.perf_counter() - start):7.1f} scenes/s   1 process")
    for labels in (False, True):
        what = "with labels" if labels else "images only"
        start = time.perf_counter()
        for scene in scenes:
            render(scene, options.size, options.size, labels=labels)
        print(f"render {what}  {few / (time.perf_counter() - start):7.1f} scenes/s   1 process")
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            Scenes("train", options.count, options.size, labels=labels, root=folder)
            seconds = time.perf_counter() - start
        print(f"cache {what}   {options.count / seconds:7.1f} scenes/s   {available_cores()} processes, "
              f"{options.count} scenes in {seconds:.1f} s")


if __name__ == "__main__":
    main()
