"""From images to predictions at their own resolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.errors import UserError
from mtl_heads.dry_run import input_channels
from transfer.prediction.run import TrainedRun, check_tasks
from transfer.prediction.views import Views
from transfer.transforms import Size, as_size, resize_image

_MULTIPLE = 32


@dataclass
class Found:
    """What is predicted of an image.

    Attributes:
        arrays: like a target, by task.
        scores: probabilities by class or attribute, of image tasks that have them.
    """

    arrays: dict[str, np.ndarray]
    scores: dict[str, dict[str, float]]


class Predictor:
    """Predicts the main tasks of a run.

    An image is brought to the size that the run was evaluated at, where it has one, and is otherwise seen at its own;
    a network that cannot take that size sees the image continued, by its border pixels, to the next multiple of 32.

    Args:
        run: the run.
        flip: average over the mirrored image too.
        scales: average over enlargements.
        size: side, or height and width, of what the network sees, instead of the run's.
        tasks: those to predict; all by default.

    Raises:
        UserError: a task that the run has not, or a size or scale that makes no sense.
    """

    def __init__(self, run: TrainedRun, flip: bool = False, scales: Sequence[float] = (1.0,),
                 size: Size | None = None, tasks: Sequence[str] | None = None) -> None:
        check_tasks(tasks or (), run.tasks)
        self.run, self.network = run, run.network
        self.tasks = {name: run.tasks[name] for name in tasks or run.tasks}
        wanted = run.config.evaluation.size if size is None else size
        self.size = as_size(wanted if wanted is None or isinstance(wanted, int) else tuple(wanted), "size")
        self.views = Views(run.network.model, self.tasks, flip, scales).eval()
        self.channels = input_channels(run.network.model)
        self._padded: set[tuple[int, int]] = set()

    @torch.inference_mode()
    def __call__(self, images: Sequence[np.ndarray]) -> list[dict[str, np.ndarray]]:
        """Predict.

        Args:
            images: uint8 ``[H, W, 3]``, all of one size.

        Returns:
            For each image an array like a target by task; of dense tasks at the image's own height and width.
        """
        return [found.arrays for found in self.found(images)]

    @torch.inference_mode()
    def found(self, images: Sequence[np.ndarray]) -> list[Found]:
        """The same, with the probabilities of image tasks."""
        size = images[0].shape[:2]
        predictions = self.predictions(self.batch(images))
        sized = {name: self.tasks[name].resized(value, size) if self.tasks[name].dense else value
                 for name, value in predictions.items()}
        return [Found({name: self.tasks[name].from_prediction(value[i]) for name, value in sized.items()},
                      {name: scores for name, value in sized.items() if (scores := self.tasks[name].scores(value[i]))})
                for i in range(len(images))]

    def batch(self, images: Sequence[np.ndarray]) -> Tensor:
        """What the network sees of images: uint8 ``[B, C, h, w]`` on its device."""
        seen = np.stack([resize_image(image, self.size) for image in images])
        if self.channels == 1:
            seen = np.rint(seen @ np.array([0.299, 0.587, 0.114]))[..., None].astype(np.uint8)
        return torch.from_numpy(np.ascontiguousarray(seen.transpose(0, 3, 1, 2))).to(self.network.mean.device)

    def predictions(self, images: Tensor) -> dict[str, Tensor]:
        """The network's predictions for a batch of uint8 ``[B, C, h, w]``, at that size."""
        height, width = images.shape[-2:]
        if (height, width) not in self._padded:
            try:
                return self._forward(images)
            except torch.OutOfMemoryError:
                raise UserError(f"images of {height} × {width} pixels do not fit the device's memory: give a smaller "
                                "--size or --batch_size") from None
            except (RuntimeError, ValueError, UserError, AssertionError) as error:
                if not height % _MULTIPLE and not width % _MULTIPLE:
                    raise UserError(f"the network cannot take images of {height} × {width} pixels "
                                    f"({' '.join(str(error).split())[:150]}): give --size") from error
                self._padded.add((height, width))
        down, right = -height % _MULTIPLE, -width % _MULTIPLE
        padded = F.pad(images.float(), (0, right, 0, down), mode="replicate").to(images.dtype)
        try:
            found = self._forward(padded)
        except (RuntimeError, ValueError, UserError, AssertionError) as error:
            raise UserError(f"the network takes images of neither {height} × {width} nor {height + down} × "
                            f"{width + right} pixels ({' '.join(str(error).split())[:150]}): give --size") from error
        return {name: value[..., :height, :width] if self.tasks[name].dense else value for name, value in found.items()}

    def _forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.views(self.network.normalise(images), list(self.tasks)).predictions
