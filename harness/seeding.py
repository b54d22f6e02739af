"""Randomness as a function of names, and the thread count.

Every random choice is drawn from a generator seeded by what it belongs to (the run's seed, the
epoch, the sample, the step). Nothing depends on how many workers or processes there are, and a
resumed run needs no stored generator state.
"""

from __future__ import annotations

import hashlib
import os
import sys
import warnings
from functools import lru_cache


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from any printable parts; the same on every machine."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def numpy_generator(*parts: object):
    """A numpy generator seeded by ``parts``."""
    import numpy as np

    return np.random.Generator(np.random.PCG64(derive_seed(*parts)))


def seed_everything(*parts: object) -> int:
    """Seed the global generators of Python, numpy and torch (all devices) from ``parts``."""
    import random

    import numpy as np
    import torch

    seed = derive_seed(*parts)
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    torch.manual_seed(seed)
    return seed


def available_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_workers() -> int:
    """Data-loading processes where none are asked for: four, or as many as there are cores."""
    return min(4, available_cores())


@lru_cache  # once for each number
def note_workers(workers: int) -> None:
    """Say in a line that there are fewer cores than data workers, instead of torch's long warning for each loader."""
    cores = available_cores()
    if workers <= cores:
        return
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    if os.environ.get("RANK", "0") == "0":
        there = f"{cores} cores are" if cores > 1 else "1 core is"
        print(f"--workers {workers}: only {there} available, so that as many workers would do", file=sys.stderr)


def set_threads(threads: int, processes_here: int = 1) -> int:
    """Set torch's thread count: ``threads``, or an equal share of the cores when it is 0.

    A scheduler that gives each process cores of its own says how many in ``TASKLIFT_CORES``.

    A launcher commonly sets one thread for each process; this overrides that, and the run records
    the result, because floating-point sums depend on it.
    """
    import torch

    given = os.environ.get("TASKLIFT_CORES", "")
    share = int(given) if given.isdigit() else available_cores() // max(1, processes_here)
    threads = threads or max(1, share)
    torch.set_num_threads(threads)
    return threads
