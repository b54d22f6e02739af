"""Optimisers (timm's, by name) and learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

from harness.errors import UserError
from harness.registry import Registry

LR_SCHEDULES: Registry[Callable[..., Callable[[float], float]]] = Registry("learning-rate schedule")
"""Factories of a function from the share of training done, in [0, 1), to a factor of the rate."""


@dataclass
class OptimizerConfig:
    """The optimiser.

    Args:
        name: any optimiser of timm: sgd (plain momentum), nesterov, adam, adamw, lamb, ...
        lr: learning rate.
        weight_decay: on all parameters, biases and norms included.
        momentum: of SGD and its like.
        options: further options of that optimiser.
    """

    name: str = "sgd"
    lr: float = 0.3
    weight_decay: float = 1e-4
    momentum: float = 0.9
    options: dict[str, Any] = field(default_factory=dict)

    def build(self, parameters: Iterable[Any]) -> torch.optim.Optimizer:
        """Make it.

        Args:
            parameters: parameters, or groups of them; a group's ``lr_scale`` multiplies its learning rate, with
                adaptive optimisers its ``adaptive_lr_scale`` where it has one.

        Raises:
            UserError: timm knows no optimiser of that name, or an option does not fit it.
        """
        from timm.optim import create_optimizer_v2

        name = "momentum" if self.name == "sgd" else self.name  # timm's "sgd" is Nesterov's
        try:
            optimizer = create_optimizer_v2(list(parameters), opt=name, lr=self.lr, weight_decay=self.weight_decay,
                                            momentum=self.momentum, filter_bias_and_bn=False, **self.options)
        except (ValueError, TypeError, AssertionError) as error:
            raise UserError(f"optimizer '{self.name}' with {self.options}: {error}") from error
        adaptive = is_adaptive(optimizer)
        for group in optimizer.param_groups:
            scale = group.get("lr_scale", 1.0)
            group["lr"] *= group.get("adaptive_lr_scale", scale) if adaptive else scale
        return optimizer

    def apply_to(self, optimizer: torch.optim.Optimizer) -> None:
        """Set what is configured here, after a state was loaded that brought its own (all but the rate)."""
        given = {"weight_decay": self.weight_decay, "momentum": self.momentum, **self.options}
        for group in optimizer.param_groups:
            group.update({key: value for key, value in given.items() if key in group})


def is_adaptive(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the length of steps depends on the rate alone and not on that of the gradients: all but SGD's variants.

    Multiples of the rate that are published for SGD are then out of place.
    """
    inner = getattr(optimizer, "_base_optimizer", optimizer)  # of timm's Lookahead
    return not type(inner).__name__.upper().startswith("SGD")


@LR_SCHEDULES.register("cosine")
def cosine() -> Callable[[float], float]:
    """Half a cosine from 1 to 0."""
    return lambda done: 0.5 * (1 + math.cos(math.pi * done))


@LR_SCHEDULES.register("poly")
def poly(power: float = 0.9) -> Callable[[float], float]:
    """(1 - share done) to a power.

    Args:
        power: the exponent.
    """
    return lambda done: (1 - done) ** power


@LR_SCHEDULES.register("constant")
def constant() -> Callable[[float], float]:
    """1 throughout."""
    return lambda done: 1.0


@LR_SCHEDULES.register("step")
def step(milestones: list[float] | None = None, factor: float = 0.1) -> Callable[[float], float]:
    """A factor at each milestone.

    Args:
        milestones: shares of training after which the rate is multiplied; 0.6 and 0.8 by default.
        factor: what it is multiplied by.
    """
    points = [0.6, 0.8] if milestones is None else milestones
    return lambda done: factor ** sum(done >= point for point in points)
