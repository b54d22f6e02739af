"""The gradient of the balanced losses of a batch, by whichever way the balance needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import UserError
from mtl_heads.output import Output
from transfer.gradients.buckets import pool_gradients
from transfer.gradients.checkpointing import refuse_reentrant
from transfer.gradients.engine import GradientEngine, halves
from transfer.gradients.importance import importances, weighed
from transfer.gradients.label_presence import LabelPresence
from transfer.gradients.passes import Part, Passes, RandomState, untouched
from transfer.strategies.base import Balance, GradientBalance, Sample
from transfer.strategies.registry import BALANCES
from transfer.tasks.base import Task


@dataclass
class _Batch:
    """What is known of the batch that steps are made on.

    Args:
        normalizers: of its parts, by which it is told from others.
        number: of the step in the run.
        presence: which units have labels.
        told: units and parts whose losses are known already, where several forwards are made.
        losses: of this process by task, for a rule that is told after the batch.
        present: ``[T]``, units that these losses are of.
        counts: of the tasks' indicators.
    """

    normalizers: Mapping[str, Tensor]
    number: int
    presence: LabelPresence
    told: set[tuple[tuple[int, ...], int]] = field(default_factory=set)
    losses: dict[str, Tensor] = field(default_factory=dict)
    present: Tensor | None = None
    counts: dict[str, Tensor] = field(default_factory=dict)


class RunObjective:
    """The :class:`transfer.strategies.base.Objective` of a run.

    Rules on losses take one backward of their objective; rules on gradients go through the engine.

    Args:
        passes: forward passes of the run.
        balance: the rule; its ``tasks`` are the names of ``units``.
        units: the tasks that act as one, by name.
        tasks: the tasks, for their indicators.
        pool: sums a tensor over the processes.
        processes: how many there are.
        seed: of the run.

    Attributes:
        trouble: what was wrong with the gradients of the last step, or with what the rule made of them; empty when
            nothing was.
    """

    def __init__(self, passes: Passes, balance: Balance, units: dict[str, list[str]], tasks: Mapping[str, Task],
                 pool: Callable[[Tensor], Tensor], processes: int, seed: int) -> None:
        self.passes, self.balance, self.units, self.tasks = passes, balance, units, tasks
        self.pool, self.processes = pool, processes
        self.engine = GradientEngine(passes, balance, units, pool, processes, seed) \
            if isinstance(balance, GradientBalance) else None
        self.per_task = getattr(getattr(passes.model, "partition", None), "per_task", False)
        for name in balance.common.importance:
            if name not in tasks:
                raise UserError(f"balance.importance has a weight for '{name}', and the tasks are {', '.join(tasks)}")
        self._within, importance = importances(balance.common.importance, units)
        self._importance = torch.tensor(importance)
        self.number = 0
        self._observes = _overrides(balance, "observe")
        self._epochs = _overrides(balance, "end_of_epoch")
        #: Sums of each unit's losses, and of the steps in which it had labels, since the epoch began.
        self.epoch = torch.zeros(2, len(units), dtype=torch.float64)
        self._weights: Tensor | None = None
        self._batch: _Batch | None = None
        self._checked = False  # whether the graph can give gradients of chosen parameters
        self._masks: dict[tuple[int, ...], Tensor] = {}  # of units, on the device
        self._random: RandomState | None = None

    @property
    def _by_parts(self) -> bool:
        """Whether the rule's weights do not depend on the losses, so that terms can be taken one by one."""
        return self.balance.linear or self.balance.affine

    @property
    def trouble(self) -> str:
        return self.engine.trouble if self.engine is not None else ""

    def check(self, parts: int) -> None:
        """Refuse batches of so many parts, where the rule needs the whole batch at once.

        Raises:
            UserError: it does.
        """
        if self.engine is not None:
            self.engine.check(parts)
        elif not self._by_parts and parts > 1:
            raise UserError(f"balance '{BALANCES.name_of(type(self.balance))}' needs the losses of the whole batch "
                            "before any gradient: set --accumulation 1")

    # -- for schedules ----------------------------------------------------------------------------

    def accumulate(self, parts: Sequence[Part], tasks: Sequence[str]) -> dict[str, Tensor]:
        """See :class:`transfer.strategies.base.Objective`."""
        self.check(len(parts))
        members = self._members(tasks)
        batch = self._begin(parts[0])
        together = len(members) == len(self.units)
        if not together and not batch.presence.any(members):
            return {}
        present = self._present(parts[0], members)
        if self.balance.looks_again:
            self._random = RandomState(parts[0].images.device)
        if self.engine is not None:
            found = self.engine.step(parts, present, self.number, self._shares(parts))
            losses = dict(zip(self.engine.tasks, found, strict=True))
            self._observe(self._pool(self._unit_losses(losses)), present)
        else:
            losses = self._accumulate(batch, parts, tasks, present, together)
        # Asked for when all work is under way, so that the device has something to do meanwhile.
        return losses if batch.presence.any(members) else {}

    def _accumulate(self, batch: _Batch, parts: Sequence[Part], tasks: Sequence[str], present: Tensor,
                    together: bool) -> dict[str, Tensor]:
        """For a rule on losses."""
        wrapped = self.passes.wrapped is not self.passes.model and together
        sums: dict[str, Tensor] = {}
        counts: dict[str, Tensor] = {}
        for part in parts:
            # One task's graph at a time, where each has its own and the terms can be taken one by one.
            turns = [[task] for task in tasks] if self.per_task and self._by_parts else [list(tasks)]
            for turn in turns:
                with self.passes.exchanging(part.last and turn is turns[-1]):
                    losses = self._losses(part, turn, wrapped, counts)
                    share = part.share if turn is turns[-1] else 0.0
                    objective = self._objective(losses, present, counts, share)
                    self._backward(objective, wrapped)
                for task, loss in losses.items():
                    sums[task] = loss.detach() + sums.get(task, 0)
        learned = list(self.balance.parameters())
        if not wrapped:
            self.exchange(list(self.passes.model.parameters()) + learned)
        elif self.balance.affine:  # each process has its own part of their gradient, scaled for the wrapper
            self.exchange(learned)
            torch._foreach_div_([value.grad for value in learned if value.grad is not None], self.processes)
        if self._by_parts:
            self._remember(batch, sums, present, counts)
        return sums

    def sample(self, part: Part, tasks: Sequence[str]) -> Sample:
        """See :class:`transfer.strategies.base.Objective`."""
        members = self._members(tasks)
        batch = self._begin(part)
        if not batch.presence.any(members):
            return Sample(torch.zeros(()), {}, {}, part.share)
        present = self._present(part, members)
        with self.passes.autocast():
            output = self.passes.model(self.passes.images(part), list(tasks))
        losses = self.passes.losses_of(output, part, tasks)
        counts: dict[str, Tensor] = {}
        again = (tuple(members), id(part.targets)) in batch.told  # another sample, or another step on the batch
        batch.told.add((tuple(members), id(part.targets)))
        if not again:
            self._count(output, part, tasks, counts)
        total = self._objective(losses, present, counts, part.share, again)
        if self._by_parts and not again:
            self._remember(batch, losses, present, counts)
        return Sample(total, losses, {task: output.of(task)[0] for task in tasks}, part.share)

    def end_of_batch(self) -> None:
        """After all steps on a batch: tell the rule of it, where it is not told before."""
        batch, self._batch = self._batch, None
        if batch is not None and batch.losses:
            self._tell(self._pool(self._unit_losses(batch.losses)), batch.present, batch.counts)

    def backward(self, total: Tensor, parameters: Sequence[nn.Parameter]) -> None:
        """See :class:`transfer.strategies.base.Objective`."""
        scale = self.passes.scale()
        self._check_graph([total])
        torch.autograd.backward(total if scale is None else total * scale, inputs=list(parameters))

    def exchange(self, parameters: Sequence[nn.Parameter]) -> None:
        """See :class:`transfer.strategies.base.Objective`."""
        if self.processes > 1:
            pool_gradients(parameters, self.pool)

    def images(self, part: Part) -> Tensor:
        """See :class:`transfer.strategies.base.Objective`."""
        return self.passes.images(part)

    def losses(self, part: Part, tasks: Sequence[str]) -> dict[str, Tensor]:
        """See :class:`transfer.strategies.base.Objective`."""
        found = self.passes.losses_of(self.passes.model(self.passes.images(part), list(tasks)), part, tasks)
        self._check_graph(list(found.values()))
        return found

    @torch.no_grad()
    def look_again(self, parts: Sequence[Part]) -> None:
        """After the step: the losses of the same batch, for a rule that asks for them."""
        sums: dict[str, Tensor] = {}
        with untouched(self.passes.model):
            if self._random is not None:
                self._random.restore()  # the same dropout, so that the step is all that differs
            for part in parts:
                with self.passes.autocast():
                    output = self.passes.model(self.passes.images(part))
                for task, loss in self.passes.losses_of(output, part, list(self.tasks)).items():
                    sums[task] = loss.detach() + sums.get(task, 0)
        self.balance.after_step(self._pool(self._unit_losses(sums)))

    def end_of_epoch(self) -> None:
        """Tell the rule the mean losses, and begin again."""
        if self._epochs:
            sums, steps = self.epoch.unbind()
            self.balance.end_of_epoch((sums / steps.clamp_min(1)).float(), steps > 0)
        self.epoch.zero_()

    def log_values(self, losses: Tensor) -> dict[str, Any]:
        """Weights of the units, and what their gradients tell.

        Args:
            losses: of the units over the whole batch, ``[T]``.
        """
        if self.engine is not None:
            return self.engine.log_values()
        weights = self._weights
        if self.balance.linear:
            with torch.enable_grad():
                values = losses.detach().clone().requires_grad_()
                (weights,) = torch.autograd.grad(self.balance.total(values), values)
        if weights is None or BALANCES.name_of(type(self.balance)) == "equal":
            return {}
        values = (weights * self._importance.to(weights)).tolist()
        return {"weights": {name: value for name, value, loss in zip(self.units, values, losses.tolist(), strict=True)
                            if loss}}

    def by_unit(self, losses: Mapping[str, Tensor]) -> Tensor:
        """``[T]``, from losses by task; 0 for units that were not looked at."""
        return self._unit_losses(losses)

    def objective_value(self, losses: Tensor) -> Tensor:
        """What stands for the objective in the log: that of a rule on losses, or the losses as a rule weighs them."""
        if self.engine is not None:
            return (self.engine.weights.to(losses) * losses).sum()
        with torch.no_grad():
            return self.balance.total(losses)

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, the balance's own state apart."""
        engine = {} if self.engine is None else {
            "weights": self.engine.weights, "solved": self.engine.solved, "keeps": self.engine.keeps}
        return {"epoch": self.epoch, **engine}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take it back."""
        self.epoch.copy_(state["epoch"])
        if self.engine is not None:
            self.engine.weights.copy_(state["weights"])
            if "solved" in state:  # else it is solved again
                self.engine.solved.copy_(state["solved"])
            self.engine.keeps = state["keeps"]  # whatever memory there is now: rounding differs

    # -- pieces -----------------------------------------------------------------------------------

    def _check_graph(self, tensors: Sequence[Tensor]) -> None:
        if not self._checked:
            refuse_reentrant(tensors, "this schedule")
            self._checked = True

    def _members(self, tasks: Sequence[str]) -> list[int]:
        """Positions of the units whose tasks are asked for."""
        return [i for i, members in enumerate(self.units.values()) if set(members) <= set(tasks)]

    def _begin(self, part: Part) -> _Batch:
        """The batch that a part belongs to; its labels are looked at once."""
        batch = self._batch
        if batch is None or batch.normalizers is not part.normalizers or batch.number != self.number:
            self.end_of_batch()
            device, known = part.images.device, part.normalizers
            counts = [sum(known[task].sum() for task in tasks if task in known) for tasks in self.units.values()]
            presence = LabelPresence(torch.stack([torch.as_tensor(count, device=device).float() for count in counts]))
            batch = self._batch = _Batch(known, self.number, presence)
        return batch

    def _present(self, part: Part, members: Sequence[int]) -> Tensor:
        """Which of these units have labels in the whole batch, ``[T]``."""
        presence = self._begin(part).presence.units
        if len(members) == len(self.units):
            return presence
        mask = self._masks.get(tuple(members))
        if mask is None or mask.device != presence.device:
            mask = torch.zeros(len(self.units), dtype=torch.bool)
            mask[list(members)] = True
            mask = self._masks[tuple(members)] = mask.to(presence.device)
        return presence & mask

    def _shares(self, parts: Sequence[Part]) -> Tensor | None:
        """For rules that compare two halves of a batch: of each unit's labels those that they have, ``[2, T]``."""
        if self.balance.draws == 1:
            return None
        counts = torch.stack([torch.stack([
            torch.as_tensor(sum(self.tasks[task].normalizer(part.targets[task]).sum()
                                for part in half for task in tasks if task in part.targets)).float()
            for tasks in self.units.values()]) for half in halves(parts, self.balance.draws)])
        counts = self._pool(counts)
        return counts / counts.sum(0).clamp_min(1)

    def _losses(self, part: Part, tasks: Sequence[str], wrapped: bool, counts: dict[str, Tensor]) -> dict[str, Tensor]:
        network = self.passes.wrapped if wrapped else self.passes.model
        with self.passes.autocast():
            # None also has the auxiliary ones, and leaves the wrapper nothing unused.
            output = network(self.passes.images(part), None if len(tasks) == len(self.tasks) else list(tasks))
        self._count(output, part, tasks, counts)
        return self.passes.losses_of(output, part, tasks)

    def _count(self, output: Output, part: Part, tasks: Sequence[str], counts: dict[str, Tensor]) -> None:
        if self.balance.wants_indicators:
            for task in tasks:
                found = self.tasks[task].indicator_counts(output.of(task)[0].detach(), part.targets[task])
                counts[task] = found + counts.get(task, 0)

    def _unit_losses(self, losses: Mapping[str, Tensor]) -> Tensor:
        """``[T]``; 0 for units that are not looked at."""
        some = next(iter(losses.values()))
        return torch.stack([sum((weighed(losses[task], self._within[task]) for task in tasks if task in losses),
                                start=torch.zeros_like(some)) for tasks in self.units.values()])

    def _pool(self, values: Tensor) -> Tensor:
        return self.pool(values) if self.processes > 1 else values

    def _objective(self, losses: Mapping[str, Tensor], present: Tensor, counts: dict[str, Tensor], share: float,
                   told: bool = False) -> Tensor:
        """A scalar whose gradients, summed over parts and processes, are those of the rule on the whole batch's losses.

        Σ_t (∂total/∂L_t) L_t with the derivative at the pooled losses; the rule's own parameters, which
        every process has alike, get their gradient from the pooled losses directly. Where the derivative does
        not depend on the losses, they get it from each part's: Σ_t (∂total/∂L_t) L_t and its share of the rest.

        Args:
            losses: of the part by task.
            present: ``[T]``, which units have labels in the batch.
            counts: of the indicators.
            share: of the batch that the part counts for.
            told: whether the rule knows of these losses already.
        """
        balance, values = self.balance, self._unit_losses(losses)
        importance = self._importance.to(values)
        if balance.linear and not balance.common.importance:
            return balance.total(values)
        if balance.affine:
            with torch.enable_grad():
                ones = present.to(values).requires_grad_()
                total = balance.total(ones)
                (weights,) = torch.autograd.grad(total, ones, create_graph=True)
                rest = total - (weights * ones.detach()).sum()
                learned = (weights * values.detach()).sum() + rest * share
            self._weights = weights.detach()
            return (self._weights * importance * values).sum() + learned
        with torch.enable_grad():
            pooled = self._pool(values.detach()).requires_grad_()
            if not balance.linear and not told:
                self._tell(pooled.detach(), present, counts)
            total = balance.total(pooled)
            (weights,) = torch.autograd.grad(total, pooled, retain_graph=True)
        self._weights = weights
        objective = (weights * importance * values).sum()
        if any(value.requires_grad for value in balance.parameters()):
            return objective + total / self.processes
        return objective

    def _backward(self, total: Tensor, wrapped: bool) -> None:
        scale = self.passes.scale()
        if wrapped:  # the wrapper takes the mean of what is a sum
            total = total * self.processes
        (total if scale is None else total * scale).backward()

    def _observe(self, losses: Tensor, present: Tensor) -> None:
        if self._observes:
            self.balance.observe(losses.detach(), present)
        if self._epochs:
            self.epoch = self.epoch.to(losses.device)
            self.epoch += torch.stack([torch.where(present, losses.detach(), 0), present.to(losses)]).double()

    def _remember(self, batch: _Batch, losses: Mapping[str, Tensor], present: Tensor,
                  counts: Mapping[str, Tensor]) -> None:
        """Keep what a rule is told after the batch."""
        for task, loss in losses.items():
            batch.losses[task] = loss.detach() + batch.losses.get(task, 0)
        for task, count in counts.items():
            batch.counts[task] = count + batch.counts.get(task, 0)
        batch.present = present if batch.present is None else batch.present | present

    def _tell(self, losses: Tensor, present: Tensor, counts: Mapping[str, Tensor]) -> None:
        """What the rule is told of the whole batch's losses ``[T]``."""
        if self._observes or self._epochs:
            self._observe(losses, present)
        if not counts:
            return
        both = self._pool(torch.stack([counts.get(task, torch.zeros(2, dtype=torch.float64, device=losses.device))
                                       for task in self.tasks]))
        shares = dict(zip(self.tasks, both[:, 0] / both[:, 1].clamp_min(1), strict=True))
        there = dict(zip(self.tasks, both[:, 1] > 0, strict=True))
        means = [sum(shares[task] for task in tasks) / sum(there[task] for task in tasks).clamp_min(1)
                 for tasks in self.units.values()]
        self.balance.observe_indicators(torch.stack(means).float(), present)


def _overrides(balance: Balance, method: str) -> bool:
    return getattr(type(balance), method) is not getattr(Balance, method)


