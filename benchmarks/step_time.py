"""Time of a training step, of many networks in turn in one process: only so do their times compare."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence

import torch

from harness.progress import progress
from harness.seeding import seed_everything
from transfer.config import TransferConfig
from transfer.data.loading import collate
from transfer.network import build_network


class TrainingStep:
    """A network with what it takes to train it: forward, losses and their sum, backward, the optimiser's step.

    Nothing is loaded: images and labels are random, of the configuration's shape. A network that trains its
    tasks in phases makes a step of each.

    Args:
        config: of a run whose losses are summed as they are.
    """

    def __init__(self, config: TransferConfig) -> None:
        seed_everything(config.seed, "step time")
        data = config.data.build()
        self.tasks = data.choose([*config.tasks, *config.auxiliary], config.task_options)
        self.network = build_network(config, self.tasks)
        self.model = self.network.model.train()
        if config.channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.optimizer = config.optimizer.build(self.model.parameter_groups())
        size = config.augmentation.options.get("size") or data.split("train")[0]["image"].shape[:2]
        height, width = (size, size) if isinstance(size, int) else size
        samples = [self._sample(height, width) for _ in range(config.batch_size)]
        batch = collate(samples, self.tasks)
        self.images = self.network.normalise(batch["image"])
        if config.channels_last:
            self.images = self.images.contiguous(memory_format=torch.channels_last)
        self.targets = batch["targets"]
        self.normalizers = {name: task.normalizer(self.targets[name]) for name, task in self.tasks.items()}

    def __call__(self) -> float:
        """Make a step of all tasks; returns how long it took, in seconds."""
        start = time.perf_counter()
        phases = self.model.phases()
        for number, names in enumerate(phases):
            if len(phases) > 1:
                self.model.enter_phase(number)
            output = self.model(self.images, None if len(names) == len(self.tasks) else names)
            losses = {name: sum(self.tasks[name].loss(prediction, self.targets[name], self.normalizers[name])
                                for prediction in output.of(name)) for name in names}
            extra = self.model.penalty(names, losses)
            self.optimizer.zero_grad()
            sum([*losses.values(), *extra.values()]).backward()
            self.optimizer.step()
        return time.perf_counter() - start

    def _sample(self, height: int, width: int) -> dict:
        channels = self.model.example_shape[1]
        image = torch.randint(256, (height, width, channels), dtype=torch.uint8).numpy()
        size = (height, width)
        targets = {name: task.from_prediction(torch.rand(task.channels, *(size if task.dense else ())))
                   for name, task in self.tasks.items()}
        return {"image": image, "id": "random", "targets": targets}


def step_times(rows: Mapping[str, Sequence[TransferConfig]], rounds: int = 11, warm_up: int = 2) -> dict[str, float]:
    """Seconds that a step of all networks of a row takes with one thread: the median over the rounds.

    In each round every row has its turn, so that what else the machine does meets all of them alike.

    Args:
        rows: configurations of each row's networks.
        rounds: that are counted.
        warm_up: rounds before them.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        steps = {name: [TrainingStep(config) for config in configs] for name, configs in rows.items()}
        found: dict[str, list[float]] = {name: [] for name in rows}
        with progress(warm_up + rounds, unit="round", description="step time", leave=False) as bar:
            for turn in range(warm_up + rounds):
                for name, networks in steps.items():
                    seconds = sum(step() for step in networks)
                    if turn >= warm_up:
                        found[name].append(seconds)
                bar.update()
    finally:
        torch.set_num_threads(threads)
    return {name: statistics.median(values) for name, values in found.items()}
