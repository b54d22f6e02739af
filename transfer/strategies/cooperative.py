"""Cooperative learning by searching flat minima."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import UserError
from harness.seeding import derive_seed
from transfer.strategies.base import Sample, Schedule, Training
from transfer.strategies.divergence import divergence
from transfer.strategies.perturbation import Replacement, with_noise
from transfer.strategies.registry import SCHEDULES


@SCHEDULES.register("cooperative")
class Cooperative(Schedule):
    """MT-COOL (Wu et al. 2023, algorithm 1).

    Task i owns a part θ_i of the encoder and its head φ_i; its loss L_i reads the parts of all tasks. The network
    warms up on 1/M Σ_j Σ_i L_i with noise ε^{(j)} on all parts (equation 7). Then, on every batch, each task in turn
    makes L steps on its own parameters alone, on

    1/M Σ_j L_i(θ_i, φ_i, θ_others + ε^{(j)}) + λ 1/M Σ_j KL(ŷ_i^{(j)} ‖ 1/M Σ_n ŷ_i^{(n)})   (equations 5 and 6)

    with noise from U(−b, b), new in every step, and the newest parameters of the others; after each step θ_i is
    clamped to ±b around what it was before the batch. So a task finds a minimum that is flat in the features of the
    others, and does not leave the region in which theirs are flat. A group of tasks owns what its tasks own.

    The step sizes α and β are the learning rate of the run's optimiser; the source takes SGD with .1 for both. All
    steps of an iteration are made on the same batch. A balance weighs the losses, and not the divergence. Batch norm
    updates its averages in every forward.

    Args:
        inner_steps: L; to be given, since it was not published.
        kl_weight: λ; likewise. 0 leaves the divergence out (the source's ablation "w/o Reg").
        warmup: steps of the warm-up, each on a batch; likewise.
        bound: b, of the noise and of the clamping.
        samples: M; at least 2 with a divergence, since one sample does not differ from the mean.
        warmup_scale: α/β.
        vanilla: without noise, divergence and clamping (the source's ablation "Vanilla"); λ is then not needed.

    Raises:
        UserError: an option is missing or impossible, or tasks have no encoder parts of their own.
    """

    def __init__(
        self,
        training: Training,
        inner_steps: int | None = None,
        kl_weight: float | None = None,
        warmup: int | None = None,
        bound: float = 0.05,
        samples: int = 1,
        warmup_scale: float = 1.0,
        vanilla: bool = False,
    ) -> None:
        super().__init__(training)
        if vanilla and kl_weight is None:
            kl_weight = 0.0
        _check_given(inner_steps=inner_steps, kl_weight=kl_weight, warmup=warmup)
        _check(inner_steps, kl_weight, warmup, bound, samples, warmup_scale, vanilla)
        self.inner_steps, self.kl_weight, self.warmup = inner_steps, kl_weight, warmup
        self.bound, self.warmup_scale, self.vanilla = bound, warmup_scale, vanilla
        self.samples = 1 if vanilla else samples  # without noise one is like the other
        self.batches = 0
        self.encoder, self.own = _divide(training)
        self._replaced = Replacement(training.model)

    def step(self, parts: Sequence[Any]) -> dict[str, Tensor]:
        losses = self._warm_up(parts) if self.batches < self.warmup else self._alternate(parts)
        self.batches += 1
        return losses

    def _warm_up(self, parts: Sequence[Any]) -> dict[str, Tensor]:
        """A step of all tasks on all parameters: lines 1 to 6."""
        optimizer = self.training.optimizer
        encoder = [value for values in self.encoder.values() for value in values]
        everything = list({id(value): value for values in self.own.values() for value in values}.values())
        losses = self._gradient(parts, self.training.tasks, everything, encoder, encoder, "warm-up")
        if losses:
            with _scaled(optimizer, self.warmup_scale):
                self.update(optimizer)
        return losses

    def _alternate(self, parts: Sequence[Any]) -> dict[str, Tensor]:
        """An outer iteration: lines 9 to 22."""
        optimizer = self.training.optimizer
        losses: dict[str, Tensor] = {}
        for group, tasks in self.training.groups.items():
            others = [value for other, values in self.encoder.items() if other != group for value in values]
            fixed = [value.detach() for value in others]  # at its newest: earlier groups have moved already
            mine = [value.detach() for value in self.encoder[group]]
            before = [value.clone() for value in mine]
            for inner in range(self.inner_steps):
                found = self._gradient(parts, tasks, self.own[group], others, fixed, group, inner)
                if not found:
                    break
                with self.moving():
                    optimizer.step()
                    self._clamp(mine, before)
                optimizer.zero_grad(set_to_none=True)
                losses = {**found, **losses}  # of its first step
        return losses

    def _gradient(self, parts: Sequence[Any], tasks: Sequence[str], own: Sequence[nn.Parameter],
                  noisy: Sequence[nn.Parameter], values: Sequence[Tensor], *name: Any) -> dict[str, Tensor]:
        """The gradient of the objective with respect to the parameters in ``own``; returns the losses.

        Args:
            parts: the batch.
            tasks: of the objective.
            own: parameters.
            noisy: those that noise is added to.
            values: what it is added to: these parameters, or what is to count as constants.
            name: what the noise is for.
        """
        objective, losses = self.training.objective, {}
        regularised = self.kl_weight > 0 and name[0] != "warm-up"

        def sample(part: Any, number: int) -> Sample:
            if self.vanilla:
                return objective.sample(part, tasks)
            seed = derive_seed(self.training.seed, "cooperative noise", self.batches, *name, number)
            with self._replaced(noisy, with_noise(values, self.bound, seed)):
                return objective.sample(part, tasks)

        for part in parts:
            drawn: list[Sample] = []
            for number in range(self.samples):
                one = sample(part, number)
                if not one.losses:
                    return {}
                for task, loss in one.losses.items():
                    losses[task] = losses.get(task, 0) + loss.detach() / self.samples
                if regularised:
                    drawn.append(one)
                else:  # one graph at a time
                    objective.backward(one.total / self.samples, own)
            if regularised:
                objective.backward(torch.stack([one.total for one in drawn]).mean() + self._divergence(drawn), own)
        objective.exchange(own)
        return losses

    def _divergence(self, samples: Sequence[Sample]) -> Tensor:
        """The second term, of all tasks, on a part of the batch."""
        families = self.training.families
        terms = [divergence([sample.predictions[task] for sample in samples], families[task])
                 for task in samples[0].predictions]
        return self.kl_weight * samples[0].share * torch.stack(terms).sum()

    def _clamp(self, values: list[Tensor], before: list[Tensor]) -> None:
        """Line 17."""
        if values and not self.vanilla:
            torch._foreach_clamp_min_(values, torch._foreach_sub(before, self.bound))
            torch._foreach_clamp_max_(values, torch._foreach_add(before, self.bound))

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "batches": self.batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.batches = state["batches"]


def _divide(training: Training) -> tuple[dict[str, list[nn.Parameter]], dict[str, list[nn.Parameter]]]:
    """What each group of tasks owns of the encoder (θ), and in all (θ and φ); what is trained of it.

    Parameters of the balance are everybody's.
    """
    model, name = training.model, type(training.model).__name__
    if not hasattr(model, "encoder_parameters"):
        raise UserError(f"schedule 'cooperative' trains each task's own part of the encoder, and {name} does not "
                        "divide its encoder among the tasks: choose --model.name cooperative, or another schedule")
    encoder = {group: [value for task in tasks for value in model.encoder_parameters(task) if value.requires_grad]
               for group, tasks in training.groups.items()}
    own = {}
    for group, tasks in training.groups.items():
        heads = [value for task in tasks for value in model.task_parameters(task) if value.requires_grad]
        learned = [value for value in training.balance.parameters() if value.requires_grad]
        own[group] = list({id(value): value for value in (*encoder[group], *heads, *learned)}.values())
    owned = {id(value) for values in own.values() for value in values}
    owned |= {id(value) for value in model.unreached_parameters()}
    left = [value for value in model.parameters() if value.requires_grad and id(value) not in owned]
    if left:
        raise UserError(f"schedule 'cooperative' needs an owner for every parameter, and {len(left)} of {name} belong "
                        "to no task: choose --model.name cooperative, or another schedule")
    return encoder, own


@contextmanager
def _scaled(optimizer: Any, factor: float) -> Iterator[None]:
    """Inside, learning rates are multiplied."""
    rates = [group["lr"] for group in optimizer.param_groups]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate * factor
    try:
        yield
    finally:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate


def _check_given(**options: float | None) -> None:
    missing = [f"--schedule.{name}" for name, value in options.items() if value is None]
    if missing:
        raise UserError(f"schedule 'cooperative' has no published value of {', '.join(missing)}: give your own")


def _check(inner_steps: int, kl_weight: float, warmup: int, bound: float, samples: int, warmup_scale: float,
           vanilla: bool) -> None:
    wrong = {
        "inner_steps": (inner_steps, inner_steps < 1, "1 or more"),
        "kl_weight": (kl_weight, not 0 <= kl_weight < math.inf, "0 or more"),
        "warmup": (warmup, warmup < 0, "0 or more"),
        "bound": (bound, not 0 < bound < math.inf, "more than 0"),
        "samples": (samples, samples < 1, "1 or more"),
        "warmup_scale": (warmup_scale, not 0 < warmup_scale < math.inf, "more than 0"),
    }
    for name, (value, impossible, range_) in wrong.items():
        if impossible:
            raise UserError(f"schedule.{name} is {value}: set it to {range_}")
    if vanilla and kl_weight > 0:
        raise UserError(f"schedule.kl_weight is {kl_weight}, and schedule.vanilla leaves out the noise that "
                        "predictions would differ by: leave one of them out")
    if kl_weight > 0 and samples < 2:
        raise UserError(f"schedule.kl_weight is {kl_weight}, and one sample has no divergence from itself: set "
                        "--schedule.samples to 2 or more, or kl_weight to 0")
