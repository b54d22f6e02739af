"""What all multi-task networks have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from harness.errors import UserError
from mtl_heads.encoder import Encoder
from mtl_heads.output import Output
from mtl_heads.reach import Reach, parameter_names, reach
from mtl_heads.tasks import Tasks
from mtl_heads.vandenhende import TaskBlocks


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

    #: Whether training begins from trained single-task networks; see :meth:`single_task_prefixes`.
    starts_from_single_task: bool = False

    #: Keyword arguments of :meth:`forward` for the predictions that training makes, in evaluation mode too.
    as_in_training: Mapping[str, Any] = {}

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

    def _output(self, predictions: Mapping[str, Tensor]) -> Output:
        """Predictions of some tasks, those of auxiliary ones as intermediate."""
        auxiliary = {task: predictions[task] for task in self.task_set.auxiliary if task in predictions}
        main = {task: predictions[task] for task in self.tasks if task in predictions}
        return Output(main, [auxiliary] if auxiliary else [])

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

    def phases(self) -> list[list[str]]:
        """Groups of tasks that are trained one group after another; by default one of all tasks."""
        return [self.task_set.all]

    def enter_phase(self, number: int) -> None:
        """Make ready to train the tasks of ``phases()[number]``: freeze what is not trained with them."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """All trainable parameters, each in one group, as optimisers take them.

        A group whose learning rate is a multiple of the run's states it as ``lr_scale``, and if it is
        another one with adaptive optimisers, that as ``adaptive_lr_scale``. The log of a run tells the
        rate of a group with a ``name``.
        """
        return self._groups([], 1.0)

    def _groups(self, faster: Iterable[nn.Parameter], lr_scale: float, **more: Any) -> list[dict[str, Any]]:
        """A group of the ordinary parameters, and one of those with a learning rate of their own, with its keys."""
        chosen = {id(value) for value in faster}
        trainable = [value for value in self.parameters() if value.requires_grad]
        ordinary = [value for value in trainable if id(value) not in chosen]
        special = [value for value in trainable if id(value) in chosen]
        groups: list[dict[str, Any]] = [{"params": ordinary}]
        return [*groups, {"params": special, "lr_scale": lr_scale, **more}] if special else groups

    def penalty(
        self, tasks: Iterable[str] | None = None, losses: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Terms that training adds to the losses of tasks, by task; a task without one is left out.

        They are means over the images of the last :meth:`forward`, or do not depend on them.

        Args:
            tasks: whose terms; ``None`` means all.
            losses: of these tasks, for terms that are made of their gradients; such terms are left out
                without them.
        """
        return {}

    @classmethod
    def single_task_options(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options of the single-task networks that a network of this architecture is compared with.

        Those that both have: head, neck and output stride. An architecture that has no such option says here
        what its networks have in its place.

        Args:
            options: of the network.
        """
        shared = ("head", "head_options", "neck", "neck_options", "output_stride")
        return {name: options[name] for name in shared if name in options}

    def single_task_prefixes(self, task: str) -> dict[str, str]:
        """Prefixes of state-dict keys of the single-task network of ``task``, and ours in their place.

        Raises:
            UserError: this architecture cannot begin from single-task networks.
        """
        raise UserError(f"{type(self).__name__} cannot start from single-task networks: leave from_single_task out")

    def vandenhende_prefixes(self) -> dict[str, str]:
        """Prefixes of state-dict keys in files of the original code base, and ours in their place.

        Raises:
            UserError: this architecture, with these options, was not in that code base.
        """
        raise UserError(f"{type(self).__name__} has no counterpart in the original code base: train it anew")

    def vandenhende_blocks(self) -> dict[str, TaskBlocks]:
        """Our names of parameters that have a block of values for each task, for files of the original code base."""
        return {}

    def _owners(self) -> Reach:
        if self._reach is None:
            self._reach = reach(self, self.example_shape)
        return self._reach
