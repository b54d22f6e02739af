"""What a task is."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchmetrics import Metric

from harness.errors import UserError, closest
from harness.registry import Registry
from transfer.tasks._losses import full_precision
from transfer.tasks._pictures import Scale
from transfer.transforms import Geometry

TASKS: Registry[type[Task]] = Registry("task", "transfer.tasks")


class Task(ABC):
    """One thing to predict.

    A subclass registers itself in :data:`TASKS`; the keyword parameters of its constructor are its
    options. A data set then tells it its name and classes with :meth:`bind`. Targets carry their own
    mask: a value that means "no label" (:attr:`ignored`), which loss and metric leave out.

    Attributes:
        name: what the data set calls it.
        classes: names of classes or attributes; empty for continuous quantities.
        dense: whether there is a value for each pixel.
        ignored: the value of a target that means "no label".
        primary: the metric that stands for the task in Δ_MTL.
        higher_is_better: direction of the primary metric.
        units: of its metrics by name (:mod:`transfer.metrics.units`); one that is not there is shown without a unit.
        family: of the distribution that a prediction stands for: categorical (logits of exclusive classes),
            bernoulli (a logit for each of several attributes) or gaussian (continuous values).
    """

    dense: ClassVar[bool] = True
    dtype: ClassVar[type] = np.uint8
    ignored: ClassVar[float] = 255
    primary: ClassVar[str]
    higher_is_better: ClassVar[bool] = True
    units: ClassVar[Mapping[str, str]] = {}
    family: ClassVar[str] = "gaussian"
    name: str = ""
    classes: tuple[str, ...] = ()

    def bind(self, name: str, classes: Sequence[str] = ()) -> Task:
        """Take the data set's name of the task and its classes; returns the task itself."""
        self.name, self.classes = name, tuple(classes)
        return self

    @property
    @abstractmethod
    def channels(self) -> int:
        """Channels that a network predicts."""

    @abstractmethod
    def normalizer(self, target: Tensor) -> Tensor:
        """Counts ``[k]`` of labels ``[B, …]``, which add up over parts of a batch."""

    @abstractmethod
    def loss(self, prediction: Tensor, target: Tensor, normalizer: Tensor) -> Tensor:
        """The loss's sum over these labels, divided by the ``normalizer`` of the whole batch.

        With the whole batch's normalizer, the losses of the batch's parts (accumulation steps,
        processes) add up to the loss of the whole. Without labels it is 0 and has zero gradient.

        Args:
            prediction: ``[B, C, H, W]``, or ``[B, C]`` for image tasks; any floating type.
            target: labels, collated.
            normalizer: sum of :meth:`normalizer` over the whole batch.

        Returns:
            A scalar, float32 (float64 for a float64 prediction).
        """

    def indicator_counts(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Numerator and denominator ``[2]`` of :meth:`indicator`, which add up over parts of a batch.

        Args:
            prediction: ``[B, C, H, W]``, or ``[B, C]`` for image tasks; any floating type.
            target: labels, collated.

        Returns:
            float64, on the device, which is not waited for.
        """
        raise UserError(f"task '{self.name}' has no key performance indicator, which the balance asks for: define its "
                        "indicator_counts, or choose another --balance.name")

    @torch.no_grad()
    def indicator(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The key performance indicator κ of a training batch (Guo et al. 2018): how well the task is solved.

        A share between 0 and 1, where 1 is perfect; 0 without labels.

        Args:
            prediction: as for :meth:`indicator_counts`.
            target: likewise.

        Returns:
            A scalar, float32.
        """
        reached, possible = self.indicator_counts(prediction, target)
        return (reached / possible.clamp_min(1)).float()

    @abstractmethod
    def metric(self) -> Metric:
        """A new metric; its ``compute()`` gives ``{name: float}``, pooled over the set."""

    def update(self, metric: Metric, prediction: Tensor, target: Tensor | Sequence[Tensor]) -> None:
        """Add a batch to ``metric``, at the labels' own resolution.

        Args:
            metric: from :meth:`metric`.
            prediction: ``[B, C, h, w]`` at the network's resolution, or ``[B, C]``.
            target: labels ``[B, …]``, or one tensor for each image where their sizes differ.
        """
        prediction = prediction.detach()
        if not isinstance(target, Tensor):
            for index, one in enumerate(target):
                self.update(metric, prediction[index : index + 1], one[None])
            return
        if self.dense:
            prediction = self.resized(prediction, target.shape[-2:])
        metric.update(prediction, target)

    def resized(self, prediction: Tensor, size: Sequence[int]) -> Tensor:
        """Predictions ``[B, C, h, w]`` of a dense task at another height and width, float32 (float64 as it is).

        Values in pixels of the picture are in those of the new size.
        """
        return resize_prediction(prediction, size)

    # -- views of one image: what test-time augmentation undoes and averages ------------------------

    def mirrored_values(self, prediction: Tensor) -> Tensor:
        """The values that a prediction ``[B, C, …]`` of a mirrored image has for the image itself."""
        return prediction

    def zoomed_values(self, prediction: Tensor, scale: float) -> Tensor:
        """The values that a prediction ``[B, C, …]`` of an image enlarged by ``scale`` has for the image itself.

        Values in pixels are left to :meth:`resized`.
        """
        return prediction

    def averaged(self, predictions: Sequence[Tensor]) -> Tensor:
        """One prediction from several of equal shape ``[B, C, …]``.

        The mean of what they stand for: of probabilities where they are logits (and the logits of that mean), of
        values otherwise.
        """
        stacked = torch.stack([full_precision(one) for one in predictions])
        if self.family == "categorical":
            return stacked.log_softmax(2).logsumexp(0) - math.log(len(predictions))
        if self.family == "bernoulli":
            # logit of a mean of probabilities from the logs of p and 1 − p, which keep their digits near 0 and 1
            return F.logsigmoid(stacked).logsumexp(0) - F.logsigmoid(-stacked).logsumexp(0)
        return stacked.mean(0)

    def unlabelled(self, height: int, width: int) -> np.ndarray:
        """A target for a sample that has no label of this task."""
        return np.full(self.target_shape(height, width), self.ignored, self.dtype)

    def target_shape(self, height: int, width: int) -> tuple[int, ...]:
        """Shape of one target as a data set gives it."""
        return (height, width) if self.dense else ()

    def apply(self, target: np.ndarray, geometry: Geometry) -> np.ndarray:
        """Transform a target: its pixels move, then its values follow the task's own rule."""
        if not self.dense:
            return target
        return self.transform_values(geometry.label(target, self.ignored), geometry)

    def transform_values(self, target: np.ndarray, geometry: Geometry) -> np.ndarray:
        """The geometric rule of the values, for labels that are already in place; may change them."""
        return target

    @abstractmethod
    def from_prediction(self, prediction: Tensor) -> np.ndarray:
        """One image's prediction ``[C, H, W]`` or ``[C]`` as an array like a target."""

    def picture(self, array: np.ndarray, truth: np.ndarray | None = None) -> np.ndarray:
        """Draw a target or a prediction, in the same colours, as uint8 ``[H, W, 3]``.

        Args:
            array: from a data set or :meth:`from_prediction`.
            truth: the target beside it, whose range fixes the colours of continuous quantities.
        """
        raise UserError(f"task '{self.name}' has no value per pixel to draw: use its caption")

    def stored(self, array: np.ndarray) -> Image.Image:
        """What a PNG file keeps of a prediction from :meth:`from_prediction`: by default its :meth:`picture`."""
        return Image.fromarray(self.picture(array))

    def legend(self, array: np.ndarray) -> list[tuple[str, tuple[int, int, int]]]:
        """What the colours of :meth:`picture` mean: words and RGB colours, the most important first."""
        return []

    def scale(self, array: np.ndarray) -> Scale | None:
        """The range that :meth:`picture` draws a continuous quantity in, beside this truth or alone; else None."""
        return None

    def scores(self, prediction: Tensor) -> dict[str, float]:
        """Probabilities by class or attribute of one image's prediction ``[C]``; none for dense tasks and values."""
        if self.dense or self.family not in ("categorical", "bernoulli"):
            return {}
        values = prediction.double()
        values = values.softmax(0) if self.family == "categorical" else values.sigmoid()
        return dict(zip(self.classes, (round(value, 6) for value in values.tolist()), strict=True))

    def caption(self, array: np.ndarray) -> str:
        """A target or a prediction of an image task in words; empty for dense tasks."""
        return ""


def build_task(
    kind: str, name: str, classes: Sequence[str] = (), options: Mapping[str, Any] | None = None
) -> Task:
    """The task ``kind`` with its options, bound to a data set's name and classes.

    Raises:
        UserError: unknown kind or option.
    """
    factory = TASKS.get(kind)
    known = [p for p in inspect.signature(factory).parameters if p != "self"]
    for option in options or {}:
        if option not in known:
            choice = f"it has {', '.join(known)}" if known else "it has none"
            raise UserError(f"task '{name}' has no option '{option}'{closest(option, known)}: {choice}")
    return factory(**(options or {})).bind(name, classes)


def resize_prediction(prediction: Tensor, size: Sequence[int]) -> Tensor:
    """Predictions ``[B, C, h, w]`` at the labels' size, bilinear (corners not aligned), float32."""
    if prediction.dtype is not torch.float64:
        prediction = prediction.float()
    if tuple(prediction.shape[-2:]) == tuple(size):
        return prediction
    return F.interpolate(prediction, size=tuple(size), mode="bilinear", align_corners=False)
