"""From samples to batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from harness.errors import UserError
from harness.seeding import numpy_generator
from transfer.data.base import Sample
from transfer.tasks.base import Task
from transfer.transforms import Augmentation, Size, as_size, resize_image


class Augmented(Dataset):
    """Training samples; an index is ``(epoch, i)``, so that every epoch augments anew.

    What is drawn depends on the seed, the epoch and the sample alone, not on workers or processes.
    """

    def __init__(
        self, split: Sequence[Sample], tasks: Mapping[str, Task], augmentation: Augmentation, seed: int
    ) -> None:
        self.split, self.tasks, self.augmentation, self.seed = split, dict(tasks), augmentation, seed

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: tuple[int, int]) -> Sample:
        epoch, i = index
        sample = self.split[i]
        generator = numpy_generator(self.seed, "augmentation", epoch, i)
        image = sample["image"]
        geometry = self.augmentation.sample(*image.shape[:2], generator)
        targets = {
            name: self.tasks[name].apply(target, geometry)
            for name, target in sample["targets"].items()
            if name in self.tasks
        }
        image = self.augmentation.colors(geometry.image(image), generator)
        return {"image": image, "id": sample["id"], "targets": targets}


class Evaluated(Dataset):
    """Evaluation samples: the image at the network's size, labels untouched at their own resolution.

    Args:
        split: the samples.
        size: side, or height and width, of the images; their own by default.
    """

    def __init__(self, split: Sequence[Sample], size: Size | None = None) -> None:
        self.split, self.size = split, as_size(size, "evaluation")

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Sample:
        sample = self.split[index]
        return {**sample, "image": resize_image(sample["image"], self.size)}


def collate(samples: Sequence[Sample], tasks: Mapping[str, Task]) -> dict[str, Any]:
    """Stack samples; labels that a sample lacks become their task's "no label".

    Args:
        samples: at least one.
        tasks: the tasks to collate, by name.

    Returns:
        ``image`` uint8 ``[B, 3, H, W]``; ``targets`` ``{task: tensor}``, ``[B, …]`` with channels
        before rows, or a list of tensors where the labels of a batch differ in size (evaluation at
        the original resolution); ``ids``, a list.

    Raises:
        UserError: images of different sizes.
    """
    shapes = {sample["image"].shape for sample in samples}
    if len(shapes) > 1:
        raise UserError(f"images of different sizes {sorted(shapes)} in one batch: give a size to resize or "
                        "crop them to, or use batch size 1")
    images = np.stack([sample["image"].transpose(2, 0, 1) for sample in samples])
    sizes = [_label_size(sample, tasks) for sample in samples]
    return {
        "image": torch.from_numpy(images),
        "targets": {name: _stack(samples, task, sizes) for name, task in tasks.items()},
        "ids": [sample["id"] for sample in samples],
    }


def _label_size(sample: Sample, tasks: Mapping[str, Task]) -> tuple[int, int]:
    """Height and width of the sample's dense labels; the image's when it has none."""
    for name, target in sample["targets"].items():
        if name in tasks and tasks[name].dense:
            return target.shape[0], target.shape[1]
    return sample["image"].shape[0], sample["image"].shape[1]


def _stack(
    samples: Sequence[Sample], task: Task, sizes: Sequence[tuple[int, int]]
) -> torch.Tensor | list[torch.Tensor]:
    arrays = []
    for sample, size in zip(samples, sizes, strict=True):
        target = sample["targets"].get(task.name)
        target = task.unlabelled(*size) if target is None else np.asarray(target, task.dtype)
        arrays.append(target.transpose(2, 0, 1) if target.ndim == 3 else target)
    if len({array.shape for array in arrays}) == 1:
        return torch.from_numpy(np.stack(arrays))
    return [torch.from_numpy(np.array(array)) for array in arrays]
