"""How near pretraining comes to the speed of its own step, and where a step spends its time.

    python -m benchmarks.pretrain [--config FILE.yaml] [--steps N] [--blocks N] [options of pretrain/main.py]
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.utils.data import DataLoader

import pretrain.engine
from harness.config import load
from harness.interrupts import quiet_worker
from harness.seeding import available_cores
from harness.world import start
from pretrain.config import PretrainConfig
from pretrain.engine import Pretraining
from pretrain.views import Views, collate

DEMO = Path(__file__).resolve().parents[1] / "configs" / "pretrain" / "demo.yaml"
PARTS = ("augmentation", "key pass", "query pass", "losses, neighbours", "backward", "optimiser, average, queues")


def main() -> None:
    """Print images/s from the loader and from memory, measured by turns, and the parts of a step."""
    parser = argparse.ArgumentParser(description=main.__doc__, epilog="further options go to the configuration, as for "
                                     "pretrain/main.py: --workers 2 --threads 1 --data.count 512 ...")
    parser.add_argument("--config", default=str(DEMO), help="configuration of the run (the demo)")
    parser.add_argument("--blocks", type=int, default=3, help="turns of each kind")
    parser.add_argument("--steps", type=int, default=20, help="measured steps of a turn")
    options, rest = parser.parse_known_args()
    config = load(PretrainConfig, ["--config", options.config, *rest], prog="benchmarks.pretrain")
    config.epochs, config.probe.every = 10_000, 0
    world = start(mixed_precision=config.mixed_precision, threads=config.threads)
    pretraining = Pretraining(config, world)
    pretraining.moco.train()
    print(f"{config.model.backbone} on {len(pretraining.source)} images ({config.data.name}), batch "
          f"{config.batch_size}, {pretraining.crops.global_size} and {pretraining.crops.local_size} px; "
          f"{available_cores()} cores: {torch.get_num_threads()} threads train, {config.workers} workers load; "
          f"{world.device}")
    views = Views(pretraining.source, pretraining.crops, config.seed)
    speed_of_views(views)
    parallel = {"prefetch_factor": config.prefetch, "persistent_workers": True} if config.workers else {}
    loader = iter(DataLoader(views, batch_sampler=pretraining.batches, collate_fn=collate, num_workers=config.workers,
                             worker_init_fn=quiet_worker if config.workers else None,
                             pin_memory=world.device.type == "cuda", **parallel))
    memory = list(islice(loader, 8))
    compare(pretraining, loader, memory, options.blocks, options.steps)
    split(pretraining, cycle(memory), options.steps)


def speed_of_views(views: Views, images: int = 64) -> None:
    """Images/s that one core decodes and cuts."""
    started = time.perf_counter()
    collate([views[0, number % len(views)] for number in range(images)])
    print(f"\none core decodes and cuts {images / (time.perf_counter() - started):8.1f} images/s")


def compare(pretraining: Pretraining, loader: Iterator[Any], memory: list[Any], blocks: int, steps: int) -> None:
    """The same step on batches of the loader and on batches in memory, by turns."""
    config = pretraining.config
    settle = 2 + config.workers * config.prefetch  # what workers prepared while nobody asked, and they themselves
    speeds = defaultdict(list)
    sources = {"loader": loader, "memory": cycle(memory)}
    for _ in range(blocks):
        for name, source in sources.items():
            run(pretraining, source, settle)
            seconds = run(pretraining, source, steps)
            speeds[name].append(config.batch_size * steps / seconds)
    for name, what in (("loader", "as it trains"), ("memory", "same step, from memory")):
        turns = "  ".join(f"{speed:.1f}" for speed in speeds[name])
        print(f"{what:24s} {median(speeds[name]):8.1f} images/s   ({turns})")
    ratios = [real / ideal for real, ideal in zip(speeds["loader"], speeds["memory"], strict=True)]
    print(f"{'ratio':24s} {100 * median(ratios):8.1f} %          ({'  '.join(f'{100 * r:.1f}' for r in ratios)})")


def run(pretraining: Pretraining, source: Iterator[Any], steps: int) -> float:
    """Seconds for some steps, logging as the loop does."""
    wait = torch.cuda.synchronize if pretraining.world.device.type == "cuda" else lambda: None
    wait()
    started = time.perf_counter()
    for _ in range(steps):
        pretraining.train_step(next(source))
        if pretraining.step % pretraining.config.loop.log_steps == 0:
            pretraining.log_values()
    wait()
    return time.perf_counter() - started


def split(pretraining: Pretraining, source: Iterator[Any], steps: int) -> None:
    """The parts of a step, by a clock around each of them."""
    seconds: dict[str, float] = defaultdict(float)
    wait = torch.cuda.synchronize if pretraining.world.device.type == "cuda" else lambda: None

    def clocked(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            wait()
            started = time.perf_counter()
            result = function(*arguments, **options)
            wait()
            seconds[part] += time.perf_counter() - started
            return result

        return call

    moco, optimizer, world = pretraining.moco, pretraining.optimizer, pretraining.world
    places = ((pretraining.augmentation, "forward", PARTS[0]), (moco, "encode_keys", PARTS[1]),
              (pretraining, "encode_queries", PARTS[2]), (pretrain.engine, "contrastive_terms", PARTS[3]),
              (world, "backward", PARTS[4]), (optimizer, "step", PARTS[5]), (moco, "update_key", PARTS[5]),
              (moco, "enqueue", PARTS[5]))
    for owner, name, part in places:
        setattr(owner, name, clocked(part, getattr(owner, name)))
    total = run(pretraining, source, steps)
    print(f"\n{'part of a step':28s} {'ms':>8s} {'share':>7s}")
    for part in PARTS:
        print(f"{part:28s} {1000 * seconds[part] / steps:8.1f} {100 * seconds[part] / total:6.1f} %")
    rest = total - sum(seconds.values())
    print(f"{'rest':28s} {1000 * rest / steps:8.1f} {100 * rest / total:6.1f} %")
    print(f"{'step':28s} {1000 * total / steps:8.1f}")


if __name__ == "__main__":
    main()
