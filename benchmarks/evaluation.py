"""Seconds and memory of the protocols on frozen features, with features of a large data set.

    python -m benchmarks.evaluation [--small] [--rows 100000] [--channels 2048] [--classes 100] [--queries 10000]
        [--epochs 10] [--threads 2] [--device cpu] [--folder DIR]

Features (random, near one direction for each class) lie in files that are mapped from the disk, as cached ones do. Each
row of the table is a process of its own; seconds of the CPU are those of all threads, which say more on a machine
that others use too. Its memory is how far the peak of its resident set (VmHWM) rises above what
it is before the first product; pages of the mapped files are in it, although they can be dropped at any time, so the
peak of the memory that cannot (RssAnon, looked at every 5 ms) stands beside it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from harness.program import run_program
from harness.seeding import numpy_generator

GRID = [(rate, decay) for rate in (0.003, 0.01, 0.03, 0.1) for decay in (0.0, 1e-3, 1e-2)]
VOC = (5011, 4952, 20)
"""Images of VOC 2007's trainval and test, and its classes."""


def write_features(path: Path, count: int, channels: int, classes: int, seed: int) -> None:
    """Write float32 features of images whose classes take turns."""
    centres = numpy_generator("centres", channels).normal(size=(classes, channels)).astype(np.float32)
    file = np.lib.format.open_memmap(path, "w+", np.float32, (count, channels))
    for start in range(0, count, 4096):
        rows = np.arange(start, min(start + 4096, count))
        noise = numpy_generator(seed, start).standard_normal((len(rows), channels), np.float32)
        file[rows] = centres[rows % classes] + 8 * noise
    file.flush()


def knn(folder: Path, options: argparse.Namespace) -> str:
    """The search at the largest k, and the votes for both."""
    from pretrain.evaluation.nearest import nearest
    from pretrain.evaluation.protocols.knn import KNearestNeighbors

    known, queries = _mapped(folder)
    protocol = KNearestNeighbors(k=[20, 200], search=options.search)
    labels, truth = np.arange(len(known)) % options.classes, np.arange(len(queries)) % options.classes
    similarity, index = nearest(protocol.search, queries, known, min(200, len(known)), options.device)
    right = [(protocol.predict(similarity, index, labels, options.classes, k) == truth).mean() for k in protocol.k]
    return ", ".join(f"k {k}: {100 * value:.1f} %" for k, value in zip(protocol.k, right, strict=True))


def linear(folder: Path, options: argparse.Namespace) -> str:
    """A grid, each epoch one pass over the features, and the scores of the queries."""
    from pretrain.evaluation.linear_grid import score_heads, train_heads

    known, queries = _mapped(folder)
    labels, truth = np.arange(len(known)) % options.classes, np.arange(len(queries)) % options.classes
    heads = train_heads(known, labels, options.classes, GRID, epochs=options.epochs, device=options.device)
    best, _, _ = score_heads(heads, queries, truth)
    right = (best[..., 0] == truth[:, None]).mean(0)
    return f"from {100 * right.min():.1f} to {100 * right.max():.1f} % over the grid"


def voc_svm(folder: Path, options: argparse.Namespace) -> str:
    """As many images and classes as VOC 2007 has, at most."""
    from pretrain.evaluation.average_precision import average_precision
    from pretrain.evaluation.linear_svm import svm_scores, train_svms

    known, queries = (rows[:count] for rows, count in zip(_mapped(folder), VOC[:2], strict=True))
    positive, relevant = ((np.arange(len(rows)) % options.classes)[:, None] % VOC[2] == np.arange(VOC[2])
                          for rows in (known, queries))
    scores = svm_scores(queries, *train_svms(known, positive, 0.5 * np.where(positive, 2, 1), device=options.device))
    each = [average_precision(scores[:, a], relevant[:, a])["area"] for a in range(VOC[2])]
    return f"{len(known)} images, {VOC[2]} classes: mAP {100 * np.mean(each):.1f} %"


ROWS: dict[str, Callable[[Path, argparse.Namespace], str]] = {"knn": knn, "linear": linear, "voc_svm": voc_svm}


def _mapped(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("known", "queries"))


def _status(name: str) -> float:
    """A figure of this process, in MB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


def measure(name: str, folder: Path, options: argparse.Namespace) -> tuple[float, float, float, float, str]:
    """Seconds of the clock and of all threads, MB of both kinds, and what was found."""
    import torch

    from harness.seeding import set_threads
    from pretrain.evaluation.base import PROTOCOLS

    set_threads(options.threads)
    PROTOCOLS.names()  # imports all that is needed
    a = torch.rand(64, 64, device=options.device)
    (a @ a).topk(3)  # libraries have their buffers
    before, peak, done = (_status("VmRSS"), _status("RssAnon")), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], _status("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    start, busy = time.perf_counter(), time.process_time()
    found = ROWS[name](folder, options)
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    done.set()
    watcher.join()
    return seconds, busy, _status("VmHWM") - before[0], max(0.0, peak[0] - before[1]), found


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluation", description=__doc__.split("\n")[0])
    for name, value, about in (("rows", 100_000, "features that are learnt from"), ("channels", 2048, "of a feature"),
                               ("classes", 100, "of the features"), ("queries", 10_000, "features that are measured"),
                               ("epochs", 10, "of the linear classifiers"), ("threads", 2, "of the CPU")):
        parser.add_argument(f"--{name}", type=int, default=value, help=f"{about} (default {value})")
    parser.add_argument("--only", choices=list(ROWS), action="append", help="this row alone")
    parser.add_argument("--search", default="torch", help="engine of the neighbour search")
    parser.add_argument("--device", default="cpu", help="where it is computed")
    parser.add_argument("--small", action="store_true", help="2 000 features of 64 channels, 2 epochs")
    parser.add_argument("--folder", type=Path, help="where the files of features are made (default: a temporary one)")
    options = parser.parse_args()
    if options.small:
        options.rows, options.channels, options.classes, options.queries, options.epochs = 2000, 64, 20, 300, 2
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        write_features(folder / "known.npy", options.rows, options.channels, options.classes, 0)
        write_features(folder / "queries.npy", options.queries, options.channels, options.classes, 1)
        size = (folder / "known.npy").stat().st_size / 2**20
        print(f"{options.rows} features of {options.channels} channels ({size:.0f} MB), {options.queries} queries, "
              f"{options.classes} classes, {options.threads} threads, {options.device}; linear: a grid of {len(GRID)}, "
              f"{options.epochs} epochs; search: {options.search}\n", flush=True)
        print("| protocol | seconds | CPU seconds | peak above the start [MB] | of it not mapped files [MB] | found |")
        print("|---|---:|---:|---:|---:|---|", flush=True)
        for row in options.only or ROWS:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
                seconds, busy, resident, own, found = alone.submit(measure, row, folder, options).result()
            print(f"| {row} | {seconds:.1f} | {busy:.1f} | {resident:.0f} | {own:.0f} | {found} |", flush=True)
    return 0


if __name__ == "__main__":
    run_program(main)
