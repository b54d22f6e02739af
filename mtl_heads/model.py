"""What all multi-task networks have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from harness.errors import UserError
from mtl_heads.encoder import Encoder
from mtl_heads.output import Output
from mtl_heads.reach import Reach, parameter_names, reach
from mtl_heads.tasks import Tasks


class MultiTaskModel(nn.Module):
    """Base class of the architectures.

    A subclass is registered in ``ARCHITECTURES``, takes ``(backbone, tasks, *, options…)``, and
    defines :meth:`encode` and :meth:`decode`. Its keyword-only parameters are the user's options.

    Args:
        tasks: the tasks; an architecture that cannot serve them raises a ``UserError``.
    """

    #: False where encoders are per task, so that no one tensor is read by all of them.
    #: Rules that work on gradients of the representation are refused there.
    shared_representation: bool = True

    def __init__(self, tasks: Tasks) -> None:
        super().__init__()
        self.task_set = tasks
        self._reach: Reach | None = None

    @property
    def tasks(self) -> list[str]:
        """Names of the main tasks: dense ones, then image ones."""
        return self.task_set.main

    @property
    def example_shape(self) -> tuple[int, int, int, int]:
        """Shape ``[1, C, H, W]`` of an image that this network certainly takes."""
        encoder = next(part for part in self.modules() if isinstance(part, Encoder))
        return encoder.example_shape

    def forward(self, images: Tensor, tasks: Iterable[str] | None = None) -> Output:
        """Predict.

        Args:
            images: ``[B, C, H, W]``, normalised as the backbone was trained.
            tasks: which tasks to predict; ``None`` means all. Parts that the others alone need are not run.

        Returns:
            Predictions at the size of the images.
        """
        tasks = self.task_set.select(tasks)  # a wrong name is told before the encoder runs
        return self.decode(self.encode(images), tuple(images.shape[-2:]), tasks)

    def encode(self, images: Tensor) -> Any:
        """The representation: what all task parts read (a list of features, fine to coarse)."""
        raise NotImplementedError

    def decode(
        self, representation: Any, size: tuple[int, int], tasks: Iterable[str] | None = None
    ) -> Output:
        """Predictions from a representation.

        Args:
            representation: what :meth:`encode` returned.
            size: height and width of dense predictions, in pixels.
            tasks: which tasks to predict; ``None`` means all.
        """
        raise NotImplementedError

    def shared_parameters(self) -> list[nn.Parameter]:
        """Parameters that are not exclusive to one task, in the order of ``parameters()``.

        A network of a single task has none, but for those that no loss reaches.
        """
        owners = self._owners().tasks
        return [value for name, value in parameter_names(self).items() if len(owners[name]) != 1]

    def task_parameters(self, task: str) -> list[nn.Parameter]:
        """Parameters that the loss of ``task`` alone reaches, its intermediate predictions included."""
        self.task_set.select([task])
        owners = self._owners().tasks
        return [value for name, value in parameter_names(self).items() if owners[name] == {task}]

    def unreached_parameters(self) -> list[nn.Parameter]:
        """Parameters that no loss reaches, such as parts of a backbone that the heads do not read."""
        owners = self._owners().tasks
        return [value for name, value in parameter_names(self).items() if not owners[name]]

    def last_shared_parameters(self) -> list[nn.Parameter]:
        """Weight and bias of the last layer, in order of execution, that all tasks' losses reach.

        Empty when there is no such layer, as with a single task.
        """
        owners, layers = self._owners()
        everybody = frozenset(self.task_set.all)
        if len(everybody) < 2:
            return []
        values = parameter_names(self)
        for layer in reversed(layers):
            if all(owners.get(name) == everybody for name in layer):
                return [values[name] for name in layer]
        return []

    def vandenhende_prefixes(self) -> dict[str, str]:
        """Prefixes of state-dict keys in files of the original code base, and ours in their place.

        Raises:
            UserError: this architecture, with these options, was not in that code base.
        """
        raise UserError(f"{type(self).__name__} has no counterpart in the original code base: train it anew")

    def _owners(self) -> Reach:
        if self._reach is None:
            self._reach = reach(self, self.example_shape)
        return self._reach
