"""Meta auxiliary learning."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Literal

import torch
from torch import Tensor

from harness.errors import UserError, closest
from harness.seeding import derive_seed
from transfer.auxiliary.entropy import negative_entropy, negative_entropy_term
from transfer.auxiliary.generated import GeneratedClasses
from transfer.auxiliary.generator import build_generator
from transfer.auxiliary.hierarchy import subclass_counts
from transfer.auxiliary.look_ahead import Ahead, difference_term, exact_term, gradients, step_ahead
from transfer.data.base import Label
from transfer.gradients.passes import RandomState, untouched
from transfer.strategies.base import LossBalance, Schedule, Training
from transfer.strategies.perturbation import Replacement
from transfer.strategies.registry import BALANCES, SCHEDULES
from transfer.tasks.base import Task
from transfer.tasks.scene import Scene


@SCHEDULES.register("maxl")
class Maxl(Schedule):
    """MAXL (Liu 2018, section 3.2): a second network makes up an auxiliary task that helps a classification task.

    The network gets a head for an auxiliary task PRIMARY_auxiliary of Σψ classes, whose soft labels a generator makes
    from the image and its class y: a softmax among the ψ[y] subclasses of y. Each iteration has two steps.

    1. θ₁ ← θ₁ − α∇_θ₁ J(θ₁, θ₂), on a training batch: the run's optimiser on the balanced losses of all tasks, the
       generated labels held constant.
    2. θ₂ ← θ₂ − β∇_θ₂ (L_pri(θ₁⁺) + λ H), on a validation batch: θ₁⁺ = θ₁ − α∇_θ₁ J(θ₁, θ₂) is one plain step on the
       same objective, on that same batch; H = Σ_k ȳ_k log ȳ_k of the labels' mean keeps classes from collapsing.

    The second gradient is exact, through the mixed second derivative of J, or by central differences. The optimiser of
    the generator is of the run's recipe, with a learning rate of its own that follows the run's. The source has plain
    SGD for both networks, .01 and .0001, halved every 50 epochs. Only the primary task is evaluated.

    Args:
        primary: name of the classification task that is helped; may be left out where there is one.
        subclasses: ψ: one number for all classes, a number for each, or a finer task of the data set, whose classes
            are counted.
        batches: what the generator learns from: val, the validation split (as the source), or train, the batch that
            the network has just learned from (as a later program).
        gradient: of the generator: exact (second order) or finite_differences.
        displacement: norm of the displacement of finite differences.
        focal: γ of the auxiliary task's focal loss; that of the primary task is its own option (task_options).
        entropy_weight: λ, against collapsing classes.
        generator: timm backbone of the generator, from random weights; a copy of the network's encoder when none.
        generator_lr: β, the learning rate of the generator at the start.
        generator_l1: weight of the L1 norm of the generator's parameters.
        look_ahead_lr: α of the step ahead; the run's present learning rate when none.

    Raises:
        UserError: an option is impossible, or the tasks, balance or partition do not go with it.
    """

    joint = True

    def __init__(
        self,
        training: Training,
        primary: str | None = None,
        subclasses: int | list[int] | str = 5,
        batches: Literal["val", "train"] = "val",
        gradient: Literal["exact", "finite_differences"] = "exact",
        displacement: float = 0.01,
        focal: float = 2.0,
        entropy_weight: float = 0.2,
        generator: str | None = None,
        generator_lr: float = 1e-4,
        generator_l1: float = 5e-4,
        look_ahead_lr: float | None = None,
    ) -> None:
        super().__init__(training)
        _check(displacement=displacement, entropy_weight=entropy_weight, generator_lr=generator_lr,
               generator_l1=generator_l1, look_ahead_lr=look_ahead_lr)
        _check_training(training)
        self.primary = _primary(training.kinds, primary)
        self.auxiliary = _name(self.primary)
        self.exact, self.displacement = gradient == "exact", displacement
        self.entropy_weight, self.l1, self.look_ahead_lr = entropy_weight, generator_l1, look_ahead_lr
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(training.seed, "label generator"))
            self.generator = build_generator(training.model, training.kinds[self.auxiliary].counts, generator)
        self._learned = list(self.generator.parameters())
        self.optimizer = training.build_optimizer([{"params": self._learned, "lr": generator_lr}])
        self.batch_of = None if batches == "train" else training.batches_of(batches)
        self.steps = 0
        self._replaced = Replacement(training.model)
        self._told: dict[str, Tensor] = {}

    @classmethod
    def added_tasks(cls, tasks: Mapping[str, Task], labels: Mapping[str, Label],
                    options: Mapping[str, Any]) -> dict[str, Task]:
        primary = _primary(tasks, options["primary"])
        if not 0 <= options["focal"] < math.inf:
            raise UserError(f"schedule.focal is {options['focal']}: set it to 0 or more")
        name = _name(primary)
        if name in tasks:
            raise UserError(f"schedule 'maxl' adds a task '{name}', and the data set has one of that name: rename it")
        counts = subclass_counts(options["subclasses"], primary, labels)
        return {name: GeneratedClasses(counts, options["focal"]).bind(name, labels[primary].classes)}

    @property
    def optimizers(self) -> list[Any]:
        return [self.training.optimizer, self.optimizer]

    # -- the two steps ----------------------------------------------------------------------------

    def step(self, parts: Sequence[Any]) -> dict[str, Tensor]:
        training = self.training
        with torch.no_grad():
            told = [self._tell(part, self._labels(part)) for part in parts]
        losses = training.objective.accumulate(told, training.tasks)
        if losses:
            self.update(training.optimizer)
        else:
            training.optimizer.zero_grad(set_to_none=True)
        if losses or self.batch_of is not None:
            self.teach(parts if self.batch_of is None else self.batch_of(self.steps))
        self.steps += 1
        return losses

    def teach(self, parts: Sequence[Any]) -> None:
        """Step of the generator (lines 9 and 10 of the algorithm) on the parts of a batch."""
        self.meta_gradient(parts)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def meta_gradient(self, parts: Sequence[Any]) -> None:
        """Add the gradient of L_pri(θ₁⁺) + λ H, and of the L1 norm, to ``.grad`` of the generator's parameters."""
        training, model = self.training, self.training.model
        values = [value for value in model.parameters() if value.requires_grad]
        rates, count = self._rates(values), _count(parts[0], self.primary)
        labels = [self._labels(part) for part in parts]
        batch = list(zip(parts, labels, strict=True))
        mean = training.pool(sum(one.detach().sum(0) for one in labels)) / count
        random = RandomState(labels[0].device)

        def inner(at: Sequence[Tensor] | None, one: tuple[Any, Tensor]) -> Tensor:
            random.restore()  # the same dropout wherever it is looked at
            return self._objective(at, values, *one)

        def outer(at: Sequence[Tensor], one: tuple[Any, Tensor]) -> Tensor:
            with self._replaced(values, at):
                return training.objective.losses(one[0], [self.primary])[self.primary]

        with untouched(model):  # batch norm's averages are those of training
            whole = self.exact and len(parts) == 1  # one graph serves both, where one is held at a time anyway
            slopes = [gradients(inner(None, one), values, create_graph=whole) for one in batch]
            slope = [training.pool(sum(rows).detach()) for rows in zip(*slopes, strict=True)]
            ahead = step_ahead(slope, outer, batch, values, rates, training.pool)
            for one in batch:
                if not self.exact:
                    term = difference_term(inner, one, values, ahead.direction, self.displacement)
                else:
                    term = exact_term(slopes[0] if whole else gradients(inner(None, one), values, create_graph=True),
                                      ahead.direction)
                term = term + self.entropy_weight * negative_entropy_term(one[1], mean, count)
                if self.l1:
                    size = torch.stack(torch._foreach_norm(self._learned, ord=1)).sum()
                    term = term + self.l1 * one[0].share * size
                training.objective.backward(term, self._learned)
        training.objective.exchange(self._learned)
        self._remember(ahead, mean, labels)

    # -- pieces -----------------------------------------------------------------------------------

    def _labels(self, part: Any) -> Tensor:
        """The generator's labels ``[B, Σψ]`` of a part."""
        return self.generator(self.training.objective.images(part), part.targets[self.primary])

    def _tell(self, part: Any, labels: Tensor) -> Any:
        """A part with these labels of the auxiliary task, as many as there are of the primary one."""
        return part._replace(targets={**part.targets, self.auxiliary: labels},
                             normalizers={**part.normalizers, self.auxiliary: part.normalizers[self.primary]})

    def _objective(self, at: Sequence[Tensor] | None, values: Sequence[Tensor], part: Any, labels: Tensor) -> Tensor:
        """J of a part, at other values of the parameters or where they are."""
        with nullcontext() if at is None else self._replaced(values, at):
            losses = self.training.objective.losses(self._tell(part, labels), self.training.tasks)
        weights = self._weights(next(iter(losses.values())))
        return sum(weights[task] * loss for task, loss in losses.items())

    def _weights(self, like: Tensor) -> dict[str, Tensor]:
        """The balance's weight of each task's loss; they do not depend on the losses."""
        training = self.training
        importance = training.balance.common.importance
        with torch.enable_grad():
            losses = torch.ones(len(training.groups)).to(like).requires_grad_()
            (slope,) = torch.autograd.grad(training.balance.total(losses), losses)
        return {task: weight * importance.get(task, 1.0)
                for members, weight in zip(training.groups.values(), slope, strict=True) for task in members}

    def _rates(self, values: Sequence[Tensor]) -> list[float]:
        """α of each parameter."""
        if self.look_ahead_lr is not None:
            return [self.look_ahead_lr] * len(values)
        rates = {id(value): float(group["lr"]) for group in self.training.optimizer.param_groups
                 for value in group["params"]}
        return [rates[id(value)] for value in values]

    # -- what it tells and remembers --------------------------------------------------------------

    def _remember(self, ahead: Ahead, mean: Tensor, labels: Sequence[Tensor]) -> None:
        chosen = torch.zeros_like(mean)
        for one in labels:
            known = one.detach().sum(1)
            chosen.scatter_add_(0, one.detach().argmax(1), known)
        self._told = {"validation_loss": ahead.loss, "label_entropy": -negative_entropy(mean),
                      "classes_used": (self.training.pool(chosen) > 0).sum()}

    def log_values(self) -> dict[str, Any]:
        """The primary loss one step ahead, the entropy of the mean label (nats), the subclasses that are an image's
        most probable one."""
        return {**super().log_values(), **({"maxl": {key: value.item() for key, value in self._told.items()}}
                                           if self._told else {})}

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "steps": self.steps, "generator": self.generator.state_dict(),
                "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.steps = state["steps"]
        self.generator.load_state_dict(state["generator"])
        self.optimizer.load_state_dict(state["optimizer"])


def _count(part: Any, task: str) -> Tensor:
    """Images with a label of a task in the whole batch."""
    return part.normalizers[task].sum().clamp_min(1).float()


def _name(primary: str) -> str:
    return f"{primary}_auxiliary"


def _primary(tasks: Mapping[str, Task], given: str | None) -> str:
    """The task that is helped."""
    classes = [name for name, task in tasks.items() if isinstance(task, Scene)]
    if given is not None and given not in tasks:
        raise UserError(f"schedule.primary is '{given}'{closest(given, classes)}, and the tasks are {', '.join(tasks)}")
    if given is not None and given not in classes:
        raise UserError(f"schedule.primary is '{given}', which does not classify images: 'maxl' divides the classes of "
                        f"a classification task ({', '.join(classes) or 'there is none'})")
    if given is None and len(classes) != 1:
        found = f"there are {', '.join(classes)}: name one with --schedule.primary" if classes else \
            f"there is none among {', '.join(tasks)}: put one in --tasks, or choose another schedule"
        raise UserError(f"schedule 'maxl' helps one task that classifies images, and {found}")
    return classes[0] if given is None else given


def _check(**options: float | None) -> None:
    for name, value in options.items():
        positive = name in ("displacement", "look_ahead_lr")
        if value is not None and not (0 < value < math.inf if positive else 0 <= value < math.inf):
            raise UserError(f"schedule.{name} is {value}: set it to {'more than 0' if positive else '0 or more'}")


def _check_training(training: Training) -> None:
    model, balance = training.model, training.balance
    if not (isinstance(balance, LossBalance) and balance.linear):
        raise UserError(f"schedule 'maxl' differentiates through a step of the main network, for which balance "
                        f"'{BALANCES.name_of(type(balance))}' must weigh losses without looking at those of the step: "
                        "choose --balance.name equal, fixed, dwa or the like")
    if getattr(model, "partition", None) is not None:
        raise UserError("schedule 'maxl' makes its look-ahead on the whole network, and a partition gives each task a "
                        "part: set --partition.name full")
    if getattr(model, "_compiled_call_impl", None) is not None:
        raise UserError("schedule 'maxl' differentiates through a step of the main network, which a compiled one "
                        "cannot: set --compile false")
