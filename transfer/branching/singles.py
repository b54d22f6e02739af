"""What is measured of the trained single-task networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from harness.checkpoint import load_file
from harness.errors import UserError
from harness.progress import progress
from harness.seeding import numpy_generator
from harness.world import main_first, sum_over_processes
from mtl_heads.stages import stages_of
from transfer.baselines import single_task_config
from transfer.branching.affinity import difficulty_affinity, task_affinity
from transfer.branching.dissimilarity import representation_dissimilarity
from transfer.config import TransferConfig
from transfer.data.base import Split
from transfer.data.loading import Evaluated, loader_options
from transfer.network import Network, build_network
from transfer.results import weights_of
from transfer.tasks.base import Task


class Measured(NamedTuple):
    """Task affinities.

    Args:
        affinity: ``[D, N, N]``, by representations, at each location.
        difficulty: ``[N, N]``, by difficult examples.
    """

    affinity: np.ndarray
    difficulty: np.ndarray


def measure(config: TransferConfig, world: Accelerator, folders: Mapping[str, str | Path], locations: int,
            held_out: str, images: int) -> Measured:
    """Run every single-task network on the same held-out images; processes share the networks out.

    Args:
        config: of the runs.
        world: accelerate's view of the processes.
        folders: of the single-task runs by task.
        locations: stages of the encoder.
        held_out: split that the images are of.
        images: how many of it.
    """
    samples = main_first(world, lambda: config.data.build().split(held_out))  # makes it where it is not there yet
    count = min(images, len(samples))
    dissimilarity = torch.zeros(len(folders), locations, count * (count - 1) // 2, device=world.device)
    errors = torch.zeros(len(folders), count, device=world.device)
    mine = list(enumerate(folders))[world.process_index :: world.num_processes]
    with progress(len(mine), unit="task", description="affinity", enabled=world.is_main_process, leave=False) as bar:
        for number, task in mine:
            single = single_task_config(config, task)
            dissimilarity[number], errors[number] = measure_task(single, world, folders[task], held_out, images)
            bar.update()
    found = [sum_over_processes(values).cpu().numpy() for values in (dissimilarity, errors)]
    return Measured(task_affinity(found[0]), difficulty_affinity(found[1]))


@torch.no_grad()
def measure_task(config: TransferConfig, world: Accelerator, folder: str | Path, held_out: str,
                 images: int) -> tuple[Tensor, Tensor]:
    """Representation dissimilarity ``[D, pairs]`` of one network, and its error ``[K]`` on each image."""
    data, (task,) = config.data.build(), config.tasks
    kind = data.choose([task], config.task_options)[task]
    samples = data.split(held_out)
    network = load_trained(config, kind, folder).to(world.device)
    network.model.eval()
    stages = stages_of(network.model.encoder)
    chosen = choose_images(samples, images, config.seed)
    errors = torch.full((len(chosen),), torch.nan, device=world.device)

    def loader(indices: list[int]) -> DataLoader:
        return DataLoader(Subset(Evaluated(samples, config.evaluation.size), indices), config.evaluation.batch_size,
                          **loader_options({task: kind}, config))

    def batches(start: int) -> Iterator[list[Tensor]]:
        at = start
        for batch in loader(chosen[start:]):
            pixels = network.normalise(batch["image"].to(world.device))
            size = (pixels.shape[-2], pixels.shape[-1])
            with world.autocast():
                states = stages(pixels)
                if start == 0:  # further passes need the features only
                    output = network.model.decode(stages.pyramid(states, size), size)
            if start == 0:
                for target, prediction in zip(batch["targets"][task], output.predictions[task], strict=True):
                    errors[at] = example_error(kind, prediction, target.to(world.device))
                    at += 1
            # a location's features are all that it hands on: several maps in networks with branches
            yield [torch.cat([maps.flatten(1) for maps in state], 1) for state in states]

    return representation_dissimilarity(batches, len(chosen)), errors


def example_error(task: Task, prediction: Tensor, target: Tensor) -> Tensor:
    """The task's loss on one example; not a number where it has no label."""
    prediction, target = prediction[None], target[None]
    normalizer = task.normalizer(target)
    if not bool((normalizer > 0).any()):
        return torch.tensor(torch.nan)
    if task.dense:
        prediction = task.resized(prediction, target.shape[-2:])
    return task.loss(prediction, target, normalizer)


def choose_images(samples: Split, images: int, seed: int) -> list[int]:
    """Which images of a split are looked at: all of them, or ``images`` drawn once."""
    if len(samples) <= images:
        return list(range(len(samples)))
    return sorted(numpy_generator(seed, "held-out").choice(len(samples), images, replace=False).tolist())


def load_trained(config: TransferConfig, task: Task, folder: str | Path) -> Network:
    """The network of a finished single-task run.

    Raises:
        UserError: there is no checkpoint, or it is of another network than the configuration describes.
    """
    path = weights_of(folder)
    network = build_network(config, {task.name: task})
    state: Any = load_file(path)
    try:
        network.model.load_state_dict(state["model"])
    except (RuntimeError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{path} is of another network than this configuration has ({reason}): give runs with the same "
                        "backbone, head and neck") from error
    return network
