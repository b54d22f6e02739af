"""From samples to batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from harness.errors import UserError
from harness.interrupts import quiet_worker
from harness.seeding import note_workers, numpy_generator
from transfer.data.base import Sample, Samples, Split
from transfer.tasks.base import Task
from transfer.transforms import Augmentation, Size, as_size, resize_image

if TYPE_CHECKING:
    from transfer.config import TransferConfig


class Augmented(Dataset):
    """Training samples; an index is ``(epoch, i)``, so that every epoch augments anew.

    What is drawn depends on the seed, the epoch and the sample alone, not on workers or processes.
    Where nothing is drawn, and the split can give several samples at once, batches are taken so.
    """

    def __init__(
        self, split: Sequence[Sample], tasks: Mapping[str, Task], augmentation: Augmentation, seed: int
    ) -> None:
        self.split, self.tasks, self.augmentation, self.seed = split, dict(tasks), augmentation, seed
        self._untouched: bool | None = None

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

    def __getitems__(self, indices: Sequence[tuple[int, int]]) -> list[Sample] | Samples:
        """A batch, for :func:`collate`."""
        if self._untouched is None:
            self._untouched = _leaves_alone(self.augmentation, self.split)
        samples = self.split.batch([i for _, i in indices]) if self._untouched else None
        return [self[index] for index in indices] if samples is None else samples


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

    def __getitems__(self, indices: Sequence[int]) -> list[Sample] | Samples:
        """A batch, for :func:`collate`."""
        samples = self.split.batch(indices) if self.size is None and isinstance(self.split, Split) else None
        return [self[index] for index in indices] if samples is None else samples


def _leaves_alone(augmentation: Augmentation, split: Sequence[Sample]) -> bool:
    """Whether a split that gives several samples at once has images that an augmentation cannot change."""
    if not isinstance(split, Split) or split.batch([0]) is None or not isinstance(augmentation, Augmentation):
        return False
    height, width = split[0]["image"].shape[:2]
    return augmentation.keeps(height, width)


def loader_options(tasks: Mapping[str, Task], config: TransferConfig, *, persistent: bool = False,
                   pin: bool = False) -> dict[str, Any]:
    """Keyword arguments of every ``DataLoader`` of a run.

    Args:
        tasks: whose labels are collated.
        config: has the number of workers and what they keep ready.
        persistent: keep the workers from one pass to the next.
        pin: into memory that a GPU copies from faster.
    """
    workers = config.workers
    note_workers(workers)
    parallel = {"prefetch_factor": config.prefetch, "persistent_workers": persistent} if workers else {}
    return {"collate_fn": partial(collate, tasks=tasks), "num_workers": workers,
            "worker_init_fn": quiet_worker if workers else None, "pin_memory": pin, **parallel}


def evaluation_batches(samples: Dataset, tasks: Mapping[str, Task], config: TransferConfig, *,
                       pin: bool = False) -> Iterator[dict[str, Any]]:
    """Collated batches of evaluation; where its images have different sizes, a batch is as many as there are sizes.

    Args:
        samples: what is evaluated on.
        tasks: whose labels are collated.
        config: has the size of batches and the number of workers.
        pin: as for :func:`loader_options`.
    """
    options = loader_options(tasks, config, pin=pin) | {"collate_fn": partial(_collate_sizes, tasks=tasks)}
    for batches in DataLoader(samples, batch_size=config.evaluation.batch_size, **options):
        yield from batches


def _collate_sizes(samples: Sequence[Sample] | Samples, tasks: Mapping[str, Task]) -> list[dict[str, Any]]:
    if isinstance(samples, dict):
        return [collate(samples, tasks)]
    groups: dict[tuple[int, ...], list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample["image"].shape, []).append(sample)
    return [collate(group, tasks) for group in groups.values()]


def collate(samples: Sequence[Sample] | Samples, tasks: Mapping[str, Task]) -> dict[str, Any]:
    """Stack samples; labels that a sample lacks become their task's "no label".

    Args:
        samples: at least one; or several that are stacked already.
        tasks: the tasks to collate, by name.

    Returns:
        ``image`` uint8 ``[B, 3, H, W]`` (``[B, 1, H, W]`` for grey images); ``targets``
        ``{task: tensor}``, ``[B, …]`` with channels before rows, or a list of tensors where the labels
        of a batch differ in size (evaluation at the original resolution); ``ids``, a list.

    Raises:
        UserError: images of different sizes.
    """
    if isinstance(samples, dict):
        return _stacked(samples, tasks)
    shapes = {sample["image"].shape for sample in samples}
    if len(shapes) > 1:
        raise UserError(f"images of different sizes {sorted(shapes)} in one batch: set --augmentation.size to crop or "
                        "stretch them to, or use batch size 1")
    images = np.stack([sample["image"].transpose(2, 0, 1) for sample in samples])
    sizes = [_label_size(sample, tasks) for sample in samples]
    return {
        "image": torch.from_numpy(images),
        "targets": {name: _stack(samples, task, sizes) for name, task in tasks.items()},
        "ids": [sample["id"] for sample in samples],
    }


def _stacked(samples: Samples, tasks: Mapping[str, Task]) -> dict[str, Any]:
    images, targets = samples["images"], {}
    for name, task in tasks.items():
        target = samples["targets"].get(name)
        if target is None:
            target = np.stack([task.unlabelled(*images.shape[1:3])] * len(images))
        target = np.asarray(target, task.dtype)
        target = target.transpose(0, 3, 1, 2) if target.ndim == 4 else target
        targets[name] = torch.from_numpy(np.ascontiguousarray(target))
    pictures = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return {"image": torch.from_numpy(pictures), "targets": targets, "ids": samples["ids"]}


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
