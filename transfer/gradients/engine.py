"""One step's direction from the gradients of several losses.

Never T full backward passes. The graph is cut at the representation: each head goes backward once, to
the cotangents of the representation (:meth:`GradientEngine._backward_heads`); these go down through the encoder
together (:mod:`transfer.gradients.pullback`), for their Gramian; the rule turns that into weights, with
one wait for the device; and the weighted sum finishes the step: of what was held (*kept*), or by one
more product (*lean*). For rules at the level of the representation that one product is all there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import UserError
from harness.seeding import derive_seed
from transfer.gradients.buckets import pool_gradients, pooled
from transfer.gradients.checkpointing import probed, refuse_reentrant
from transfer.gradients.gradient_statistics import gradient_statistics
from transfer.gradients.importance import importances, weighed
from transfer.gradients.jacobian import Jacobian, add_to, crossed
from transfer.gradients.memory import fits
from transfer.gradients.passes import Part, Passes, RandomState, untouched
from transfer.gradients.products import Formed, Products, full, weighted_sum
from transfer.gradients.pullback import pull_back, pull_back_in_turn
from transfer.strategies.base import GradientBalance, JacobianBalance
from transfer.strategies.registry import BALANCES


@dataclass
class _HeadGradients:
    """What a forward, and a backward through the heads, gave of a part of the batch.

    Args:
        part: the part.
        losses: of the single tasks, detached.
        outputs: tensors of the representation, with their graph where it is held; none where tasks have
            no representation in common.
        cotangents: of these, by position, ``[T, …]``.
        direct: rows ``[T, …]`` of shared parameters that the heads reach themselves.
        random: what the encoder's forward began from.
    """

    part: Part
    losses: Tensor
    outputs: list[Tensor] = field(default_factory=list)
    cotangents: dict[int, Tensor] = field(default_factory=dict)
    direct: dict[Tensor, Tensor] = field(default_factory=dict)
    random: RandomState | None = None


class GradientEngine:
    """Puts a rule's direction into ``.grad``.

    Parameters of one task (or group) alone get its gradient; shared ones get the rule's direction.

    Args:
        passes: forward passes of the run.
        balance: the rule; its ``tasks`` are the names of ``units``.
        units: the tasks of each row of the Jacobian.
        pool: sums a tensor over the processes.
        processes: how many there are.
        seed: of the run.

    Attributes:
        weights: of the last solution in which a unit had labels, ``[T]``.
        solved: which units had labels in a solution so far, ``[T]``, bool.

    Raises:
        UserError: the rule cannot work on this architecture, or with these options.
    """

    def __init__(self, passes: Passes, balance: GradientBalance, units: dict[str, list[str]],
                 pool: Callable[[Tensor], Tensor], processes: int, seed: int) -> None:
        self.passes, self.balance, self.units = passes, balance, units
        self.pool, self.processes, self.seed = pool, processes, seed
        self.tasks = [task for tasks in units.values() for task in tasks]
        self._sizes = [len(tasks) for tasks in units.values()]
        common, model = balance.common, passes.model
        self.name = BALANCES.name_of(type(balance))
        self.level = common.level or balance.level
        self.scale_heads = balance.scale_heads if common.scale_heads is None else common.scale_heads
        self.per_task = getattr(getattr(model, "partition", None), "per_task", False)
        self.cuts = model.shared_representation and not self.per_task
        self.jacobian_rule = isinstance(balance, JacobianBalance)
        self._check()
        self.shared = [value for value in model.shared_parameters() if value.requires_grad]
        chosen = model.last_shared_parameters() if self.level == "last" else self.shared
        self.chosen = [value for value in chosen if value.requires_grad]
        if not self.chosen and len(units) > 1:
            raise UserError(f"balance '{self.name}' looks at {'the last' if self.level == 'last' else 'a'} layer that "
                            f"all tasks share, and {type(model).__name__} has none that is trained: choose a rule on "
                            "losses, or another architecture")
        shared = {id(value) for value in self.shared}
        own = [{id(value): value for task in tasks for value in model.task_parameters(task)}
               for tasks in units.values()]
        self.own = [[value for key, value in values.items() if value.requires_grad and key not in shared]
                    for values in own]
        self.keeps = self._keeps()
        self.weights = torch.ones(len(units), dtype=torch.float64)
        self.solved = torch.zeros(len(units), dtype=torch.bool)
        self._trouble = ""
        self._sound: Tensor | None = None  # whether the rule's direction is finite, on the device
        self._solved = self._failed = False
        self._in_encoder: dict[Tensor, tuple[int, int]] | None = None
        self._recomputes: bool | None = None  # activations, in the backward pass; None until the first step
        self._within, importance = importances(common.importance, units)
        self._importance = torch.tensor(importance, dtype=torch.float64)
        self._in_unit = torch.tensor([self._within[task] for task in self.tasks])
        self._gramian = torch.zeros(len(units), len(units), dtype=torch.float64)
        self._statistics = self._gramian  # of the whole batch's gradients, where the rule looks at something else
        self._present = torch.zeros(len(units), dtype=torch.bool)

    def _check(self) -> None:
        balance, common = self.balance, self.balance.common
        if self.level not in balance.levels:
            raise UserError(f"balance '{self.name}' cannot work at level '{self.level}': set --balance.level "
                            f"{' or '.join(balance.levels)}")
        if self.level == "representation" and not self.cuts:
            why = "a partition gives each task a forward of its own" if self.per_task else \
                f"in {type(self.passes.model).__name__} tasks have encoders of their own"
            raise UserError(f"balance '{self.name}' works on the representation that all tasks read, and {why}: set "
                            "--balance.level params, or choose another rule")
        if self.level == "representation" and balance.draws > 1:
            raise UserError(f"balance '{self.name}' compares parts of a batch, whose representations are of different "
                            "images: set --balance.level params")
        if common.update_every < 1:
            raise UserError(f"balance.update_every is {common.update_every}: set it to 1 or more")
        if self.jacobian_rule and (common.update_every > 1 or common.importance):
            option = "update_every" if common.update_every > 1 else "importance"
            raise UserError(f"balance '{self.name}' gives a direction and no weights: leave --balance.{option} out")
        if self.jacobian_rule and self.scale_heads:
            raise UserError(f"balance '{self.name}' gives a direction and no weights that could scale the gradients of "
                            "parameters of one task: leave --balance.scale_heads out")
        if common.mode != "auto" and self.level != "params":
            raise UserError(f"balance '{self.name}' looks at gradients at level '{self.level}', where those of all "
                            "parameters are not made: leave --balance.mode out, or set --balance.level params")

    def _keeps(self) -> bool:
        """Whether all products are held until the weights are known."""
        mode = self.balance.common.mode
        if self.level != "params":
            return False
        reason = "it needs all gradients at once" if self.jacobian_rule or self.balance.draws > 1 else \
            "there is no representation of all tasks to begin again from" if not self.cuts else ""
        if mode == "lean" and reason:
            raise UserError(f"balance '{self.name}' cannot run in mode lean, since {reason}: set --balance.mode kept")
        return bool(reason) or mode == "kept" or (mode == "auto" and self._fits())

    def _fits(self) -> bool:
        """Whether there is room for all products, on every process: they must all do the same."""
        room = fits(self.shared, len(self.units))
        if self.processes == 1:
            return room
        votes = self.pool(torch.tensor(float(room), device=self.shared[0].device if self.shared else None))
        return float(votes) == self.processes

    def check(self, parts: int) -> None:
        """Refuse batches of so many parts, where they cannot be worked on one by one.

        Raises:
            UserError: they cannot.
        """
        whole = self.jacobian_rule and self.level == "representation" and not (
            self.balance.componentwise or self.balance.sums_over_batch)
        if whole and (parts > 1 or self.processes > 1):
            raise UserError(f"balance '{self.name}' needs the representation of the whole batch at once: set "
                            "--accumulation 1 and use one process, or set --balance.level params")
        if parts > 1 and self.level == "params" and self.balance.common.mode == "lean":
            raise UserError("--balance.mode lean frees gradients, and those of a batch's parts must be added up first: "
                            "set --accumulation 1, or --balance.mode kept")

    # -- a step -----------------------------------------------------------------------------------

    @property
    def trouble(self) -> str:
        """What was wrong with the gradients of the last step, or with what the rule made of them; empty when nothing.

        A direction is not read by the step itself: this waits for it.
        """
        sound, self._sound = self._sound, None
        if not self._trouble and sound is not None and not bool(sound):
            self._trouble = f"balance '{self.name}' gave a direction that is not finite"
        return self._trouble

    def step(self, parts: Sequence[Part], present: Tensor, number: int, shares: Tensor | None = None) -> Tensor:
        """Accumulate the rule's direction for one batch into ``.grad``; returns the losses of :attr:`tasks`.

        Args:
            parts: the batch.
            present: ``[T]``, bool, on the device: which units have labels in the batch.
            number: of the step in the run.
            shares: for rules with two draws, ``[2, T]``: of the units' labels that each half of the batch has.
        """
        self._trouble, self._sound, self._solved = "", None, False
        self._own_gradients: list[list[Tensor | None]] = [[None] * len(own) for own in self.own]
        alone = len(parts) == 1
        if not self._due(number, present):
            heads = [self._backward_heads(part, graph=alone) for part in parts]
            self._backward_weighted(heads, self.weights, encoder_own=True)
        elif self.level == "representation":
            heads = [self._backward_heads(part, graph=alone) for part in parts]
            self._at_representation(heads, present, number)
        else:
            heads = self._at_parameters(parts, present, number, shares)
        return _total(heads)

    def _due(self, number: int, present: Tensor) -> bool:
        """Whether the rule is asked for weights in this step."""
        if self._failed or number % self.balance.common.update_every == 0:
            return True
        # A unit that no solution was for has no weight on the scale of the others'.
        return not self.solved.all() and bool((present.cpu() & ~self.solved).any())

    def _by_unit(self, losses: Tensor) -> Tensor:
        """Losses of the units ``[T]`` from those of the tasks."""
        if self.balance.common.importance:
            losses = losses * self._in_unit.to(losses)
        return torch.stack([own.sum() for own in losses.split(self._sizes)])

    def _at_representation(self, heads: list[_HeadGradients], present: Tensor, number: int) -> None:
        losses = self._by_unit(_total(heads))
        gramian = torch.zeros(len(self.units), len(self.units)).to(losses)
        for head in heads:  # rows are values in single images: their inner products add up
            for values in head.cotangents.values():
                rows = full(values.flatten(1))
                gramian += rows @ rows.T
        if self.processes > 1:
            gramian, losses = pooled([gramian, losses], self.pool)
        if not self.jacobian_rule:
            self._backward_weighted(heads, self._solve(gramian, losses, present, number), encoder_own=True)
            return
        rows = self._read(gramian, losses, present)
        if self.balance.sums_over_batch:
            directions = self._masked(heads, number)
        else:
            directions = [self._direction_of(head, rows, number) for head in heads]
            if self.processes > 1 and self._sound is not None:  # each has images of its own
                self._sound = self.pool(self._sound.float()) == self.processes
        self._backward_weighted(heads, torch.ones(len(self.units), dtype=torch.float64), directions, encoder_own=True)

    def _direction_of(self, head: _HeadGradients, rows: list[int], number: int) -> Sequence[Tensor]:
        """What takes the place of the cotangents of a part: each image's values are columns of their own."""
        jacobian = torch.cat([full(values.flatten(1)) for values in head.cotangents.values()], 1)
        self.balance.inputs = torch.cat([full(head.outputs[i].detach().flatten()) for i in head.cotangents])
        sizes = [values[0].numel() for values in head.cotangents.values()]
        direction = self._direction(jacobian, rows, number).split(sizes)
        self.balance.inputs = None
        return direction

    def _masked(self, heads: Sequence[_HeadGradients], number: int) -> list[list[Tensor]]:
        """The same where the rule looks at each place of the representation, over all images of the batch."""
        sums: dict[int, Tensor] = {}
        for head in heads:
            for i, values in head.cotangents.items():
                found = (full(values) * torch.where(head.outputs[i].detach() < 0, -1.0, 1.0)).sum(1)
                sums[i] = found + sums.get(i, 0)
        places = list(sums.values())
        if self.processes > 1:
            places = pooled(places, self.pool)
        sizes = [value[0].numel() for value in places]
        joined = torch.cat([value.flatten(1) for value in places], 1)
        if self._trouble:  # nothing of it is remembered
            factors = torch.full_like(joined, torch.nan).split(sizes, 1)
        else:
            with self._random(number):
                factors = self._found(self.balance.factors(joined), joined.shape, "factors").split(sizes, 1)
        by_output = {i: factor.view_as(sums[i])[:, None] for i, factor in zip(sums, factors, strict=True)}
        return [[(full(values) * by_output[i]).sum(0) for i, values in head.cotangents.items()] for head in heads]

    def _at_parameters(self, parts: Sequence[Part], present: Tensor, number: int,
                       shares: Tensor | None) -> list[_HeadGradients]:
        halves, several = self._halves(parts), len(parts) > 1
        keep = self.keeps or (several and self.level == "params")
        counted = {id(value) for value in self.chosen}
        pool = self.pool if self.processes > 1 else None
        jacobians = [Jacobian(len(self.units), keep=keep or self.balance.draws > 1, pool=pool, parts=len(half),
                              counted=counted) for half in halves]
        heads = []
        for half, jacobian in zip(halves, jacobians, strict=True):
            for part in half:
                head = self._backward_heads(part, graph=True)
                self._fill(jacobian, head, self.shared if keep else self.chosen)
                if keep:
                    head = _HeadGradients(part, head.losses)
                elif several:  # gone down from a second time, when the weights are known
                    head.outputs = [value.detach() for value in head.outputs]
                heads.append(head)
            jacobian.close()
        losses = self._by_unit(_total(heads))
        losses = self.pool(losses) if pool else losses
        gramian, whole = (jacobians[0].gramian(), None) if len(jacobians) == 1 else crossed(*jacobians, shares)
        if self.jacobian_rule:
            rows = self._read(gramian, losses, present)
            direction = self._direction(jacobians[0].rows(self.chosen), rows, number)
            for parameter, values in zip(self.chosen, direction.split([v.numel() for v in self.chosen]), strict=True):
                if parameter in jacobians[0].held:
                    add_to(parameter, values)
            self._finish_own(torch.ones(len(self.units), dtype=torch.float64))
            return heads
        weights = self._solve(gramian, losses, present, number, whole)
        if not keep:
            self._backward_weighted(heads, weights)
            return heads
        on_device = weights.to(losses)
        for jacobian in jacobians:
            for parameter, products in jacobian.held.items():
                add_to(parameter, products.weighted(on_device))
        self._finish_own(weights)
        return heads

    def _halves(self, parts: Sequence[Part]) -> list[Sequence[Part]]:
        draws = self.balance.draws
        if len(parts) < draws:
            raise UserError(f"balance '{self.name}' compares {draws} parts of a batch, and a process has only "
                            f"{sum(len(part.images) for part in parts)} of its images: set --batch_size to at least "
                            f"{draws * self.processes}")
        return halves(parts, draws)

    # -- the rule ---------------------------------------------------------------------------------

    def _solve(self, gramian: Tensor | None, losses: Tensor, present: Tensor, number: int,
               whole: Tensor | None = None) -> Tensor:
        """The rule's weights ``[T]``, float64 on the CPU; NaN where something is wrong."""
        rows = self._read(gramian, losses, present, whole)
        weights = torch.zeros(len(self.units), dtype=torch.float64)
        if rows and not self._trouble:
            needed = self._losses[rows] if self.balance.needs_losses else None
            with self._random(number), self.balance.restricted(rows):
                found = self.balance.weights(self._gramian[rows][:, rows], needed)
            weights[rows] = self._of_shape(found, (len(rows),), "weights").double().cpu()
            if not weights.isfinite().all():
                self._trouble, self._failed = f"balance '{self.name}' gave weights that are not finite", True
        if self._trouble:  # nothing of it is remembered
            return weights.fill_(torch.nan)
        weights *= self._importance
        self.weights[rows] = weights[rows]  # who has no label now keeps what it had
        self.solved[rows] = True
        return weights

    def _direction(self, jacobian: Tensor, rows: list[int], number: int) -> Tensor:
        if self._trouble or not rows:
            return torch.full_like(jacobian[0], torch.nan if self._trouble else 0.0)
        scale = self.passes.scale()
        if len(rows) < len(self.units):
            jacobian = jacobian[rows]
        with self._random(number), self.balance.restricted(rows):
            found = self.balance.direction(jacobian if scale is None else jacobian / scale)
        found = self._found(found, jacobian.shape[1:], "direction")
        return found if scale is None else found * scale

    def _found(self, values: Any, shape: Sequence[int], what: str) -> Tensor:
        """What a rule on the gradients themselves gave; whether it is finite is asked for later."""
        values = self._of_shape(values, shape, what)
        sound = values.isfinite().all()
        self._sound = sound if self._sound is None else self._sound & sound
        return values

    def _of_shape(self, values: Any, shape: Sequence[int], what: str) -> Tensor:
        """What the rule's method of this name gave.

        Raises:
            UserError: it is no tensor of this shape.
        """
        if isinstance(values, Tensor) and values.shape == torch.Size(shape):
            return values
        got = f"shape {list(values.shape)}" if isinstance(values, Tensor) else f"type {type(values).__name__}"
        raise UserError(f"balance '{self.name}' gave {what} of {got}: let its method {what} return a tensor of shape "
                        f"{list(shape)}")

    def _read(self, gramian: Tensor | None, losses: Tensor, present: Tensor, whole: Tensor | None = None) -> list[int]:
        """Bring to the CPU what the rule reads, in one wait; returns the rows that have labels.

        Args:
            gramian: what the rule is given.
            losses: of the units.
            present: which of them have labels.
            whole: the Gramian of the whole batch, where the rule is given something else.
        """
        count = len(self.units)
        tables = [gramian] if self.balance.draws == 1 else [gramian, whole]
        values = torch.stack([losses.new_zeros(count, count) if table is None else table for table in tables]).double()
        scale = self.passes.scale()
        if scale is not None:
            values = values / scale / scale
        read = torch.cat([values.flatten(), losses.double(), present.double()]).cpu()
        found = read[:-2 * count].view(-1, count, count)
        self._gramian, self._statistics, self._losses = found[0], found[-1], read[-2 * count:-count]
        self._present, self._solved = read[-count:] > 0, True
        rows = self._present.nonzero().flatten().tolist()
        bad = [name for i, name in enumerate(self.units) if i in rows and not self._statistics[i, i].isfinite()]
        if bad:
            self._trouble = f"the gradient of {', '.join(bad)} is not finite"
        self._failed = bool(bad)
        return rows

    def _random(self, number: int) -> Any:
        """Random draws of the rule: the same on all processes, and of this step alone."""
        device = self.shared[0].device if self.shared else torch.device("cpu")
        return _seeded(derive_seed(self.seed, "balance", number), device)

    # -- passes -----------------------------------------------------------------------------------

    def _backward_heads(self, part: Part, graph: bool) -> _HeadGradients:
        """Forward, and backward through the heads.

        Args:
            part: of the batch.
            graph: whether the encoder's graph is needed.
        """
        model, passes = self.passes.model, self.passes
        if self.per_task:
            return self._backward_task_by_task(part)
        images = passes.images(part)
        random = RandomState(images.device)
        first = self._recomputes is None
        with passes.autocast():
            if self.cuts:
                outputs = self._encode(images, random, graph or first)
                leaves = [value.detach().requires_grad_() for value in outputs]
                output = model.decode(leaves, images.shape[-2:])
            else:
                self._recomputes, outputs, leaves = False, [], []
                with _eager(model):  # a compiled graph can be gone through once
                    output = model(images)
        losses = passes.losses_of(output, part, self.tasks)
        totals = [sum(weighed(losses[task], self._within[task]) for task in tasks) for tasks in self.units.values()]
        if first:
            refuse_reentrant([*outputs, *totals], f"balance '{self.name}'")
        rows = [self._row(total, number, [*leaves, *self.shared], retain=number < len(totals) - 1)
                for number, total in enumerate(totals)]
        columns = [_stack([row[i] for row in rows], value) for i, value in enumerate([*leaves, *self.shared])]
        return _HeadGradients(part, torch.stack([losses[task].detach() for task in self.tasks]), outputs,
                              {i: values for i, values in enumerate(columns[:len(leaves)]) if values is not None},
                              {value: values for value, values in zip(self.shared, columns[len(leaves):], strict=True)
                               if values is not None}, random)

    def _encode(self, images: Tensor, random: RandomState, graph: bool) -> list[Tensor]:
        """The representation; at the first time also learn how its graph works."""
        model = self.passes.model
        with torch.set_grad_enabled(graph):
            if self._recomputes is None:
                outputs, self._recomputes = probed(model, lambda: list(model.encode(images)), random.restore)
                return outputs
            return list(model.encode(images))

    def _backward_task_by_task(self, part: Part) -> _HeadGradients:
        """With a forward for each task: one graph at a time."""
        rows, losses = [], []
        for number, tasks in enumerate(self.units.values()):
            sums: list[Tensor | None] = [None] * len(self.shared)
            for task in tasks:
                with self.passes.autocast():
                    output = self.passes.model(self.passes.images(part), [task])
                loss = self.passes.losses_of(output, part, [task])[task]
                if self._recomputes is None:
                    refuse_reentrant([loss], f"balance '{self.name}'")
                row = self._row(weighed(loss, self._within[task]), number, self.shared, retain=False)
                sums = [new if old is None else old if new is None else old + new
                        for old, new in zip(sums, row, strict=True)]
                losses.append(loss.detach())
            rows.append(sums)
        self._recomputes = False
        columns = [_stack([row[i] for row in rows], value) for i, value in enumerate(self.shared)]
        direct = {value: values for value, values in zip(self.shared, columns, strict=True) if values is not None}
        return _HeadGradients(part, torch.stack(losses), direct=direct)

    def _row(self, loss: Tensor, number: int, inputs: list[Tensor], retain: bool) -> list[Tensor | None]:
        """Gradients of a loss of a unit with respect to ``inputs``; those of its own parameters are put aside."""
        scale, own = self.passes.scale(), self._own_gradients[number]
        found = torch.autograd.grad(loss if scale is None else loss * scale, [*inputs, *self.own[number]],
                                    retain_graph=retain, allow_unused=True)
        for i, value in enumerate(found[len(inputs):]):
            if value is not None:
                own[i] = value if own[i] is None else own[i] + value
        return list(found[:len(inputs)])

    def _pull_back(self, outputs: Sequence[Tensor], head: _HeadGradients, parameters: Sequence[Tensor],
                   sink: Callable[[Tensor, Products], None], factors: bool = True) -> None:
        """The cotangents of all tasks through the encoder."""
        roots, cotangents = [outputs[i] for i in head.cotangents], list(head.cotangents.values())
        if self._recomputes:
            pull_back_in_turn(roots, cotangents, parameters, sink)
        else:
            pull_back(roots, cotangents, parameters, sink, factors)

    def _fill(self, jacobian: Jacobian, head: _HeadGradients, parameters: Sequence[Tensor]) -> None:
        """Rows of the Jacobian from a part of the batch: down through the encoder, and the heads' own."""
        reached: set[Tensor] = set()
        own = self._own_in_encoder()

        def take(parameter: Tensor, products: Products) -> None:
            if parameter in own:
                self._add_own_gradient(*own[parameter], products)
                return
            reached.add(parameter)
            direct = head.direct.get(parameter)
            if direct is not None:
                products = Formed(products.rows().view_as(direct) + direct)
            jacobian.add(parameter, products)

        if head.cotangents:
            self._pull_back(head.outputs, head, [*parameters, *own], take, factors=jacobian.may_factor)
        wanted = {id(value) for value in parameters}
        for parameter, values in head.direct.items():
            if parameter not in reached and id(parameter) in wanted:
                jacobian.add(parameter, Formed(values))

    def _backward_weighted(self, heads: Sequence[_HeadGradients], weights: Tensor,
                           directions: Sequence[Sequence[Tensor]] | None = None, encoder_own: bool = False) -> None:
        """One product, of the weighted cotangents, for each part of the batch.

        Args:
            heads: gradients of the parts.
            weights: ``[T]``.
            directions: what takes the place of the weighted cotangents, for each part.
            encoder_own: whether parameters of the encoder that one unit alone reaches still lack their gradient.
        """
        local = weights.to(heads[0].losses)
        before = [value.grad for value in self.shared]
        for value in self.shared:
            value.grad = None
        for number, head in enumerate(heads):
            for parameter, values in head.direct.items():
                add_to(parameter, Formed(values).weighted(local))
            if not head.cotangents:
                continue
            combined = [weighted_sum(values, local) for values in head.cotangents.values()] \
                if directions is None else \
                [piece.view_as(head.outputs[i]) for i, piece in zip(head.cotangents, directions[number], strict=True)]
            with self._encoded_again(head) if len(heads) > 1 else nullcontext(head.outputs) as outputs:
                self._backward_encoder(head, outputs, combined, encoder_own)
        self.exchange(self.shared)
        for value, old in zip(self.shared, before, strict=True):
            if old is not None:
                value.grad = old if value.grad is None else value.grad.add_(old)
        self._finish_own(weights)

    def _backward_encoder(self, head: _HeadGradients, outputs: Sequence[Tensor], combined: Sequence[Tensor],
                          encoder_own: bool) -> None:
        """Combined cotangents through the encoder, into ``.grad`` of the shared parameters."""
        if encoder_own and (own := self._own_in_encoder()):
            self._pull_back(outputs, head, list(own),
                            lambda parameter, products: self._add_own_gradient(*own[parameter], products))
        pairs = [(outputs[i], values.to(outputs[i].dtype)) for i, values in zip(head.cotangents, combined, strict=True)
                 if outputs[i].requires_grad]
        if pairs:
            torch.autograd.backward([output for output, _ in pairs], [values for _, values in pairs],
                                    inputs=self.shared)

    def _own_in_encoder(self) -> dict[Tensor, tuple[int, int]]:
        """Parameters of single units that their heads do not reach: they are in the encoder. With unit and position."""
        if self._in_encoder is None:
            self._in_encoder = {parameter: (number, i) for number, own in enumerate(self.own)
                                for i, parameter in enumerate(own) if self._own_gradients[number][i] is None}
        return self._in_encoder if self.cuts else {}

    def _add_own_gradient(self, number: int, i: int, products: Products) -> None:
        """The gradient of a unit for the parameter that it alone reaches."""
        gradient, known = products.row(number), self._own_gradients[number][i]
        self._own_gradients[number][i] = gradient if known is None else known + gradient

    @contextmanager
    def _encoded_again(self, head: _HeadGradients) -> Iterator[list[Tensor]]:
        """The representation with its graph, computed once more, so that one part's is there at a time."""
        head.random.restore()
        with untouched(self.passes.model):  # until the graph, which has saved the buffers, is done with
            with self.passes.autocast():
                outputs = list(self.passes.model.encode(self.passes.images(head.part)))
            yield outputs

    def _finish_own(self, weights: Tensor) -> None:
        """Put the gradients of parameters of one unit alone into ``.grad``: of its loss, as the user weighs it."""
        factors = (weights if self.scale_heads else self._importance).tolist()
        found = [(parameter, gradient, factor)
                 for parameters, gradients, factor in zip(self.own, self._own_gradients, factors, strict=True)
                 for parameter, gradient in zip(parameters, gradients, strict=True) if gradient is not None]
        totals = [gradient for _, gradient, _ in found]
        if self.processes > 1:
            totals = pooled(totals, self.pool)
        for (parameter, _, factor), gradient in zip(found, totals, strict=True):
            add_to(parameter, gradient if factor == 1.0 else gradient * factor)
        self._own_gradients = [[None] * len(own) for own in self.own]

    def exchange(self, parameters: Sequence[Tensor]) -> None:
        """Sum ``.grad`` over the processes."""
        if self.processes > 1:
            pool_gradients(parameters, self.pool)

    # -- what is told and remembered --------------------------------------------------------------

    def log_values(self) -> dict[str, Any]:
        """The weights; and norms, cosines and conflicts of the gradients, in steps that looked at them."""
        names, found = list(self.units), {}
        if not self.jacobian_rule:
            found["weights"] = dict(zip(names, self.weights.tolist(), strict=True))
        return {**found, **gradient_statistics(self._statistics, self._present, names)} if self._solved else found


def halves(parts: Sequence[Part], draws: int) -> list[Sequence[Part]]:
    """The parts of a batch as so many batches."""
    size = len(parts) // draws
    return [parts[i * size:] if i == draws - 1 else parts[i * size:(i + 1) * size] for i in range(draws)]


def _total(heads: Sequence[_HeadGradients]) -> Tensor:
    """Losses of the tasks over the parts of a batch."""
    return torch.stack([head.losses for head in heads]).sum(0)


def _eager(model: nn.Module) -> AbstractContextManager[Any]:
    """Inside, a network that was compiled runs as it is written."""
    if getattr(model, "_compiled_call_impl", None) is None:
        return nullcontext()
    return torch.compiler.set_stance("force_eager")


def _stack(rows: list[Tensor | None], like: Tensor) -> Tensor | None:
    """``[T, …]``; 0 for those that are not there, None where none is."""
    if all(row is None for row in rows):
        return None
    return torch.stack([torch.zeros_like(like) if row is None else row for row in rows])


class _seeded:
    """Inside, the global generators are seeded; after it they are as they were."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._seed, self._fork = seed, torch.random.fork_rng([device] if device.type == "cuda" else [])

    def __enter__(self) -> None:
        self._fork.__enter__()
        torch.manual_seed(self._seed)

    def __exit__(self, *exception: Any) -> None:
        self._fork.__exit__(*exception)
