"""Samples of NYUD's size per second and worker, and the share of a training step spent waiting for them.

    python -m benchmarks.reading [--root DIR] [--count N] [--rounds N] [--workers N] [--batch N] [--steps N]

Without ``--root``, built-in scenes are written as NYUD is published, 480×640 with all four labels. Times of reading are
of the processor with one thread; ``--steps`` also trains a network for so many steps, on a GPU where there is one, and
says which part of the time it waited for a batch.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from benchmarks.data import measure
from harness.errors import UserError
from harness.program import run_program
from harness.sampling import Batches
from scenes.export import export
from transfer.data import DATASETS
from transfer.data.base import DataSet
from transfer.data.loading import Augmented, collate
from transfer.transforms import Augmentation

SIZE = (480, 640)


def readers(data: DataSet) -> dict[str, Callable[[int], object]]:
    """What is measured, by what the table calls it: functions of a sample's number."""
    found: dict[str, Callable[[int], object]] = {}
    for task in data.labels:
        data.choose([task])
        found[f"image, {task}"] = data.split("train").__getitem__
    tasks = data.choose()
    split = data.split("train")
    found["all labels"] = split.__getitem__
    augmented = Augmented(split, tasks, Augmentation(), seed=0)
    found["all labels, flip and zoom"] = lambda index: augmented[0, index]
    found["all labels, flip, zoom and batch"] = lambda index: collate([augmented[0, index]], tasks)
    return found


def _read_all(read: Callable[[int], object], numbers: Iterable[int]) -> None:
    for number in numbers:
        read(number)


def table(seconds: dict[str, list[float]]) -> list[str]:
    """The lines of a Markdown table: medians over the rounds."""
    lines = ["| one worker | ms/sample | samples/s |", "|---|---:|---:|"]
    for name, values in seconds.items():
        median = statistics.median(values)
        lines.append(f"| {name} | {median * 1e3:.1f} | {1 / median:.0f} |")
    return lines


def waiting(data: DataSet, workers: int, batch_size: int, steps: int) -> tuple[float, float]:
    """Train a network; seconds of a step, and the share of them spent waiting for a batch."""
    from mtl_heads import build_model
    from mtl_heads.backbones import create_backbone

    tasks = data.choose()
    split = data.split("train")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build_model("baseline", create_backbone("resnet18"), image={},
                        dense={name: task.channels for name, task in tasks.items()}).to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    epochs = -(-(steps + 3) * batch_size // len(split))
    loader = DataLoader(Augmented(split, tasks, Augmentation(), seed=0), num_workers=workers,
                        batch_sampler=Batches(len(split), batch_size, max(1, epochs + 1), seed=0, drop_last=True),
                        collate_fn=partial(collate, tasks=tasks), pin_memory=device.type == "cuda")
    batches, waited, total = iter(loader), 0.0, 0.0
    for step in range(steps + 3):
        started = time.perf_counter()
        batch = next(batches)
        ready = time.perf_counter()
        images = batch["image"].to(device, non_blocking=True).float() / 255
        output = model(images)
        loss = torch.zeros((), device=device)
        for name, task in tasks.items():
            target = batch["targets"][name].to(device, non_blocking=True)
            for prediction in output.of(name):
                loss = loss + task.loss(prediction, target, task.normalizer(target))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if step >= 3:  # the first ones fill the queues
            waited += ready - started
            total += time.perf_counter() - started
    return total / steps, waited / total


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reading", description=__doc__.splitlines()[0])
    parser.add_argument("--root", help="folder of NYUD (by default scenes are written in its layout)")
    parser.add_argument("--count", type=int, default=16, help="samples read in a round")
    parser.add_argument("--rounds", type=int, default=5, help="that are counted")
    parser.add_argument("--workers", type=int, default=2, help="data-loading processes while training")
    parser.add_argument("--batch", type=int, default=8, help="images in a training step")
    parser.add_argument("--steps", type=int, default=0, help="training steps; 0: only reading is measured")
    options = parser.parse_args()
    for name in ("count", "rounds", "batch"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} is {getattr(options, name)}: set it to 1 or more")
    with tempfile.TemporaryDirectory() as folder:
        root = options.root
        if not root:
            print("writing scenes …", file=sys.stderr)
            counts = {"train": max(options.count, options.batch), "val": 1}
            root = str(export("nyud", Path(folder) / "nyud", counts, SIZE))
        data = DATASETS.get("nyud")(root=root)
        count = min(options.count, len(data.split("train")))
        by_turns = {name: partial(_read_all, read) for name, read in readers(data).items()}
        print("\n".join(table(measure(by_turns, range(count), options.rounds))))
        if options.steps:
            seconds, share = waiting(data, options.workers, options.batch, options.steps)
            where = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
            print(f"\nbatch {options.batch}, {options.workers} workers, ResNet-18 on {where}: a step takes "
                  f"{seconds:.3f} s, {100 * share:.1f} % of it waiting ({options.batch / seconds:.1f} images/s)")
    return 0


if __name__ == "__main__":
    run_program(main)
