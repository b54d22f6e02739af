"""Partitions that change the output of the filters of shared layers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from harness.errors import UserError
from mtl_heads.model import MultiTaskModel
from mtl_heads.output import Output
from transfer.strategies.base import Partition
from transfer.strategies.filters import FilterLayer, shared_layers


class FilterPartition(Partition):
    """Changes what each filter of the shared layers gives, by task: σ((H ∗ K) ⊙ m_t) (Pascal 2021, equation 3.2).

    A subclass defines :meth:`modulate`. Values are changed after the norm of a layer and before its
    activation.

    Batch norm is shared by the tasks, as in the source: in training each task's forward is normalised by
    the batch as this task sees it, and moves the running statistics, which evaluation uses for all of them.
    They are so a moving mean over the tasks, in which one of the last of a step counts a little more.

    Args:
        model: the network that it is made for; it is not changed before :meth:`into`.

    Attributes:
        layers: the shared layers.

    Raises:
        UserError: the network has no encoder that all tasks share, or it is no convolutional one.
    """

    def __init__(self, model: MultiTaskModel) -> None:
        super().__init__(model.task_set.all)
        self.layers: list[FilterLayer] = shared_layers(model)

    @abstractmethod
    def modulate(self, layer: int, features: Tensor) -> Tensor:
        """What the running task makes of a layer's output.

        Args:
            layer: number in :attr:`layers`.
            features: ``[B, C, h, w]``, or ``[B, h, w, C]`` where the layer has channels last.
        """

    def into(self, model: MultiTaskModel) -> MultiTaskModel:
        """Put it into the network, which keeps its parameters, its names and its class."""
        for number, layer in enumerate(self.layers):
            change = _Change(self, number)
            if layer.before:
                layer.site.register_forward_pre_hook(change.input)
            else:
                layer.site.register_forward_hook(change.output)
        own = type(model)
        model.partition = self
        model._reach = None  # there may be parameters that it does not know
        model.__class__ = type(own.__name__, (_TaskByTask, own), {"__module__": own.__module__, "__doc__": own.__doc__})
        return model


class _Change:
    """Lets a partition change the values at a site; a copy of the network has its own, of its own partition."""

    def __init__(self, partition: FilterPartition, layer: int) -> None:
        self.partition, self.layer = partition, layer

    def input(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self._changed(inputs[0]), *inputs[1:])

    def output(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return self._changed(output)

    def _changed(self, features: Tensor) -> Tensor:
        if self.partition.task is None:
            raise UserError(f"partition {type(self.partition).__name__}: what the encoder gives depends on the task: "
                            "call the network itself, or encode within model.partition.using(task)")
        return self.partition.modulate(self.layer, features)


class _TaskByTask:
    """What a network with a partition does otherwise: one forward per task."""

    partition: Partition

    @property
    def shared_representation(self) -> bool:
        """All parts of one task's forward read one representation; those of different tasks do not."""
        return self.partition.task is not None

    def forward(self, images: Tensor, tasks: Iterable[str] | None = None, **options: Any) -> Output:
        predictions: dict[str, Tensor] = {}
        intermediate: list[dict[str, Tensor]] = []
        for task in self.task_set.select(tasks):
            with self.partition.using(task):
                output = super().forward(images, [task], **options)
            # What this forward found for other tasks on the way is no prediction of theirs.
            predictions.update({task: output.predictions[task]} if task in output.predictions else {})
            for number, maps in enumerate(output.intermediate):
                if number == len(intermediate):
                    intermediate.append({})
                intermediate[number].update({task: maps[task]} if task in maps else {})
        return Output(predictions, intermediate)
