"""What the parts of a strategy are asked for: balance, schedule, partition."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from harness.errors import UserError
from transfer.strategies.distance import CoveredDistance
from transfer.strategies.registry import BALANCES, SCHEDULES

if TYPE_CHECKING:
    from transfer.data.base import Label
    from transfer.tasks.base import Task

Level = Literal["params", "last", "representation"]


@dataclass
class BalanceConfig:
    """Options of every balance.

    Args:
        importance: the user's weight of tasks, on top of the rule's own (Vandenhende 2022, section 6.3.3,
            heuristic 3); 1 for those not named. It weighs the loss, so also parameters of one task alone, and
            each task's part in a group.
        level: where a rule on gradients looks at them: params (all shared parameters), last (the last shared
            layer) or representation (what all task parts read); the rule's own choice when none.
        mode: how products at the level of parameters are held: kept (all of them), lean (one tensor's at a
            time, for one more product) or auto (by memory).
        update_every: steps between two solutions of a rule on gradients; its weights stay in between.
        scale_heads: whether the weights of a rule on gradients also scale the gradients of parameters of one
            task alone; the rule's own choice when none.
    """

    importance: dict[str, float] = field(default_factory=dict)
    level: Level | None = None
    mode: Literal["auto", "kept", "lean"] = "auto"
    update_every: int = 1
    scale_heads: bool | None = None


class Balance(nn.Module):
    """How the losses or gradients of the tasks become one step.

    Learned weights are parameters of the module, what it remembers are its buffers: both are saved and
    come back with a resumed run. What it is told in :meth:`observe` and its like is the same on all
    processes.

    Args:
        tasks: names, in the order of losses and gradients.

    Attributes:
        common: options that every rule has.
    """

    #: Whether :meth:`after_step` is called, with losses of the same batch after the step: one more forward.
    looks_again: ClassVar[bool] = False
    #: Whether :meth:`observe_indicators` is called.
    wants_indicators: ClassVar[bool] = False

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        self.tasks = list(tasks)
        self.common = BalanceConfig()

    def observe(self, losses: Tensor, present: Tensor) -> None:
        """The losses of the whole batch: before the objective, or after the batch where that is linear in them.

        A rule that is linear is told once of each batch that has labels, however many steps a schedule makes on it;
        another is told of each task once. Losses are on their device, which must not be waited for.

        Args:
            losses: ``[T]``, detached; 0 for a task without labels in the batch.
            present: ``[T]``, bool: which tasks have labels in the batch.
        """

    def observe_indicators(self, indicators: Tensor, present: Tensor) -> None:
        """Likewise: ``[T]`` key performance indicators of the batch, between 0 and 1; 1 is perfect."""

    def after_step(self, losses: Tensor) -> None:
        """After each step: the losses ``[T]`` of the same batch, computed again."""

    def end_of_epoch(self, losses: Tensor, present: Tensor) -> None:
        """After each epoch: the mean over its steps of each task's loss ``[T]``; which tasks had labels."""


class LossBalance(Balance, ABC):
    """A rule that needs the values of the losses alone.

    Attributes:
        linear: the objective is linear in the losses, with weights that do not depend on those of this
            step; so the parts of a batch can be weighed one by one.
        affine: the objective is linear in the losses, with weights that only depend on the rule's own parameters, but
            for a term of these parameters alone (a regulariser), which counts once for a batch.
        separable: the objective is a sum of one term for each task, so that a schedule can take its terms
            apart.
    """

    linear: ClassVar[bool] = False
    affine: ClassVar[bool] = False
    separable: ClassVar[bool] = True

    @abstractmethod
    def total(self, losses: Tensor) -> Tensor:
        """The objective; calling it changes nothing.

        Args:
            losses: ``[T]``, in the order of :attr:`tasks`; 0 for a task without labels in the batch.

        Returns:
            A scalar; its gradient is what the optimiser sees.
        """


class GradientBalance(Balance, ABC):
    """A rule on the gradients of the tasks: the rows of the Jacobian ``[T, P]``.

    Tasks without labels in a batch are left out of its problem: a method may be called with fewer rows
    than there are tasks, and :attr:`rows` says which these are.

    Attributes:
        level: where it looks at gradients unless told otherwise.
        levels: where it can.
        scale_heads: whether its weights also apply to parameters of one task alone, unless told otherwise.
        needs_losses: whether it is given the values of the losses.
        draws: how many independent parts of the batch it needs the Jacobian of (MoDo and SDMGrad: two).
        rows: positions in :attr:`tasks` of the rows of the present problem.
    """

    level: ClassVar[Level] = "params"
    levels: ClassVar[tuple[Level, ...]] = ("params", "last", "representation")
    scale_heads: ClassVar[bool] = False
    needs_losses: ClassVar[bool] = False
    draws: ClassVar[int] = 1

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__(tasks)
        self.rows = list(range(len(self.tasks)))

    @contextmanager
    def restricted(self, rows: Sequence[int]) -> Iterator[None]:
        """Inside, the problem has these rows only."""
        before, self.rows = self.rows, list(rows)
        try:
            yield
        finally:
            self.rows = before

    @abstractmethod
    def combine(self, jacobian: Tensor, losses: Tensor | None = None) -> Tensor:
        """The direction: what takes the place of the gradient.

        Args:
            jacobian: ``[T, P]``, a gradient in each row.
            losses: ``[T]``, where the rule needs them.

        Returns:
            ``[P]``.
        """


class GramianBalance(GradientBalance):
    """A rule that needs the gradients' inner products alone, and gives their weights."""

    @abstractmethod
    def weights(self, gramian: Tensor, losses: Tensor | None = None) -> Tensor:
        """Weights of the gradients.

        Args:
            gramian: ``[T, T]``, float64 on the CPU; inner products of the gradients. With two
                :attr:`draws`, those of the first part's with the second part's.
            losses: ``[T]``, likewise.

        Returns:
            ``[T]``, likewise.
        """

    def combine(self, jacobian: Tensor, losses: Tensor | None = None) -> Tensor:
        rows = jacobian.detach().double()
        gramian = (rows @ rows.T).cpu()
        weights = self.weights(gramian, None if losses is None else losses.detach().double().cpu())
        return weights.to(jacobian) @ jacobian


class JacobianBalance(GradientBalance):
    """A rule that needs the gradients themselves; all of them are kept until it is done.

    Its direction is not a weighted sum, so it says nothing about layers before the one that it looks
    at: it can work on all shared parameters or on the representation, and not on the last layer alone.
    """

    levels: ClassVar[tuple[Level, ...]] = ("params", "representation")
    #: Whether each column's direction depends on that column alone, so that the columns may come in pieces.
    componentwise: ClassVar[bool] = False
    #: At the representation, :meth:`factors` is asked instead of :meth:`direction`.
    sums_over_batch: bool = False

    def factors(self, sums: Tensor) -> Tensor:
        """At the representation, what each task's gradient is multiplied by, alike in all images.

        Args:
            sums: ``[T, P]``, for each place of the representation (a channel at a position): the gradient times the
                sign of the activation there (1 where that is 0), summed over the images of the whole batch.
                Rows of tasks without labels are 0.

        Returns:
            ``[T, P]``.
        """
        raise NotImplementedError

    @abstractmethod
    def direction(self, jacobian: Tensor) -> Tensor:
        """The direction ``[P]`` for a Jacobian ``[T, P]``, float32 on the device of the network.

        At the level of the representation a column is one of its values in one image; there
        :attr:`inputs` holds these values ``[P]``.
        """

    #: Values of the representation ``[P]`` that the columns belong to; None at the level of parameters.
    inputs: Tensor | None = None

    def combine(self, jacobian: Tensor, losses: Tensor | None = None) -> Tensor:
        return self.direction(jacobian)


class Objective(Protocol):
    """The gradient of the balanced losses of a batch; see :mod:`transfer.gradients`."""

    def accumulate(self, parts: Sequence[Any], tasks: Sequence[str]) -> dict[str, Tensor]:
        """Put it into ``.grad`` of the network's parameters (adding to what is there).

        Args:
            parts: the batch, cut for gradient accumulation.
            tasks: the tasks of the objective; fewer than all where a schedule takes them apart.

        Returns:
            The loss of every one of these tasks on this process's share of the batch, detached; nothing where none
            of them has a label in the whole batch, on any process: no step is due then, and what is in ``.grad``
            is to be thrown away.
        """

    def sample(self, part: Any, tasks: Sequence[str]) -> Sample:
        """One forward of one part of the batch, with its graph: for schedules that add terms of their own."""

    def backward(self, total: Tensor, parameters: Sequence[nn.Parameter]) -> None:
        """Add the gradients of a scalar on this process's share of the batch to ``.grad`` of these parameters alone,
        in the scale that the optimiser's ``step`` expects (mixed precision); :meth:`exchange` follows, once."""

    def exchange(self, parameters: Sequence[nn.Parameter]) -> None:
        """Sum ``.grad`` of these over the processes."""

    def images(self, part: Any) -> Tensor:
        """What the network takes of a part."""

    def losses(self, part: Any, tasks: Sequence[str]) -> dict[str, Tensor]:
        """Losses of one part in full precision, with their graph, of which the balance is told nothing."""


@dataclass
class Sample:
    """One forward of one part of a batch, with its graph.

    Attributes:
        total: the balance's terms of the tasks; a scalar whose gradients, summed over parts and processes, are those
            of the rule on the whole batch.
        losses: of the tasks; they add up over parts and processes. Empty where no task of them has a label in the
            whole batch.
        predictions: of the tasks, as the loss reads them (the first where there are several).
        share: of the whole batch (over parts and processes) that the part is: what is a mean over images is
            multiplied by it.
    """

    total: Tensor
    losses: dict[str, Tensor]
    predictions: dict[str, Tensor]
    share: float


@dataclass
class Training:
    """What a schedule works with.

    Attributes:
        model: the network, without wrappers.
        tasks: names of all tasks in training.
        balance: the rule; its ``tasks`` are the names of the groups where tasks are grouped.
        objective: gradients.
        optimizer: of all parameters, with ``step`` and ``zero_grad``; accelerate's wrapper.
        build_optimizer: makes one of the same recipe for other parameters (groups as
            ``model.parameter_groups()`` gives them).
        sizes: number of labelled training samples of each task.
        seed: of the run.
        groups: tasks by name of their group (:func:`transfer.strategies.groups.task_groups`), in the order in which
            a schedule takes them; each acts as one task.
        track_distance: whether the way through the shared parameters is measured.
        families: of the distribution that each task's predictions stand for: categorical, bernoulli or gaussian.
        kinds: the tasks by name, those that the schedule added included.
        batches_of: makes a function from a number to the parts of a batch of another split, as those of training.
        pool: sums a tensor over the processes.
    """

    model: nn.Module
    tasks: list[str]
    balance: Balance
    objective: Objective
    optimizer: Any
    build_optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer]
    sizes: Mapping[str, int]
    seed: int
    groups: dict[str, list[str]]
    track_distance: bool = False
    families: Mapping[str, str] = field(default_factory=dict)
    kinds: Mapping[str, Task] = field(default_factory=dict)
    batches_of: Callable[[str], Callable[[int], Sequence[Any]]] | None = None
    pool: Callable[[Tensor], Tensor] = lambda value: value


class Schedule(ABC):
    """Whose step is taken when.

    Args:
        training: what it works with.

    Attributes:
        joint: all losses are there at once, as rules on gradients and rules that are no sum need.
    """

    joint: ClassVar[bool] = False

    def __init__(self, training: Training) -> None:
        self.training = training
        self.distance = CoveredDistance(training.model.shared_parameters()) if training.track_distance else None
        balance = training.balance
        if self.joint:
            return
        if isinstance(balance, GradientBalance):
            reason = "combines the gradients of all tasks in one step"
        elif isinstance(balance, LossBalance) and not balance.separable:
            reason = "needs the losses of all tasks in one step"
        else:
            return
        raise UserError(f"balance '{BALANCES.name_of(type(balance))}' {reason}, and schedule "
                        f"'{SCHEDULES.name_of(type(self))}' takes the tasks apart: choose --schedule.name shared, or "
                        "another balance")

    @classmethod
    def added_tasks(cls, tasks: Mapping[str, Task], labels: Mapping[str, Label],
                    options: Mapping[str, Any]) -> dict[str, Task]:
        """Tasks that the network gets besides those of the data set; the schedule makes their targets itself.

        They are of the image, not dense, and only trained: they are not evaluated.

        Args:
            tasks: the data set's, by name.
            labels: of the data set.
            options: of the schedule.
        """
        return {}

    @property
    def optimizers(self) -> list[Any]:
        """All optimisers, whose learning rates follow the run's schedule."""
        return [self.training.optimizer]

    @abstractmethod
    def step(self, parts: Sequence[Any]) -> dict[str, Tensor]:
        """Optimise on one batch.

        Args:
            parts: the batch, cut for gradient accumulation.

        Returns:
            The loss of every task that was looked at, on this process's share of the batch, detached.
        """

    def update(self, optimizer: Any) -> None:
        """Step and clear the gradients; the way is measured where that was asked for."""
        with self.moving():
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def moving(self) -> AbstractContextManager[None]:
        """Around one update step of the parameters."""
        return nullcontext() if self.distance is None else self.distance.step()

    def log_values(self) -> dict[str, Any]:
        """What the last step tells, the same on all processes; may wait for the device."""
        return {} if self.distance is None else self.distance.log_values()

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, as tensors and plain data, but for ``training.optimizer`` and the balance."""
        return {} if self.distance is None else {"distance": self.distance.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take it back.

        Raises:
            ValueError: it is not of this schedule.
        """
        if state.keys() != self.state_dict().keys():
            raise ValueError(f"the state of schedule '{SCHEDULES.name_of(type(self))}' has {sorted(state)}")
        if self.distance is not None:
            self.distance.load_state_dict(state["distance"])


class Partition(nn.Module):
    """Which part of the shared encoder a task uses, so that every task has a forward of its own.

    It is ``model.partition`` in the network that it was put into: a ``MultiTaskModel`` as before, which runs
    its tasks one at a time. What it remembers are its buffers, what it learns its parameters. What all
    tasks read is no one tensor any more, so rules on gradients of the representation are refused.

    In ``PARTITIONS`` are functions ``(model, *, seed, options…)`` that return the network to train, as it was
    given or with a partition in it.

    Args:
        tasks: names, in the order of the network.

    Attributes:
        per_task: whether every task has a forward of its own.
        task: whose forward is running; None between forwards.
    """

    per_task: ClassVar[bool] = True

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        self.tasks = list(tasks)
        self.task: str | None = None

    @contextmanager
    def using(self, task: str) -> Iterator[None]:
        """Inside, the network is that of ``task``, and its ``encode`` and ``decode`` work too."""
        before, self.task = self.task, task
        try:
            yield
        finally:
            self.task = before

    def after_step(self, step: int, steps_per_epoch: int) -> None:
        """After each step of training, on all processes alike.

        Args:
            step: steps done since the beginning of the run, this one included.
            steps_per_epoch: in one pass over the training split.
        """

    def log_values(self) -> dict[str, Any]:
        """What it has to tell, the same on all processes; may wait for the device."""
        return {}
