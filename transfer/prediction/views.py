"""Test-time flips and scales."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import UserError
from mtl_heads.output import Output
from transfer.tasks.base import Task


class Views(nn.Module):
    """A network that sees each image several times, mirrored and at several sizes, and averages what it predicts.

    Each task undoes what the view did to its values: x of normals and of offsets changes sign with a flip; depth
    predicted on an image enlarged by s is multiplied by s, inverse depth divided, as in training; values in pixels
    follow the size. The mean is over probabilities, unit vectors or values (:meth:`transfer.tasks.base.Task.averaged`).

    Args:
        model: the network.
        tasks: its main tasks by name.
        flip: see the image mirrored too.
        scales: enlargements of the image; 1 is the image itself.

    Raises:
        UserError: a scale is not positive, or there is none.
    """

    def __init__(self, model: nn.Module, tasks: Mapping[str, Task], flip: bool = False,
                 scales: Sequence[float] = (1.0,)) -> None:
        super().__init__()
        if not scales or min(scales) <= 0:
            raise UserError(f"scales {list(scales)}: give one or more numbers above 0, such as 0.75 1 1.25")
        self.model, self.tasks, self.flip, self.scales = model, dict(tasks), flip, tuple(scales)

    def forward(self, images: Tensor, tasks: Iterable[str] | None = None) -> Output:
        """Predictions at the size of the images, like those of the network."""
        if not self.flip and self.scales == (1.0,):
            return self.model(images, tasks)
        height, width = images.shape[-2:]
        found: dict[str, list[Tensor]] = {}
        for scale in self.scales:
            size = max(1, round(height * scale)), max(1, round(width * scale))
            scaled = images if size == (height, width) else F.interpolate(
                images, size=size, mode="bilinear", align_corners=False, antialias=True)
            for mirrored in (False, True) if self.flip else (False,):
                output = self.model(scaled.flip(3) if mirrored else scaled, tasks)
                for name, value in output.predictions.items():
                    found.setdefault(name, []).append(self._undone(name, value, mirrored, scale, (height, width)))
        return Output({name: self.tasks[name].averaged(values) for name, values in found.items()}, [])

    def _undone(self, name: str, value: Tensor, mirrored: bool, scale: float, size: tuple[int, int]) -> Tensor:
        task = self.tasks[name]
        if not task.dense:
            return value
        if mirrored:
            value = task.mirrored_values(value.flip(3))
        return task.resized(task.zoomed_values(value, scale), size)
