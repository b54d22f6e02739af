"""How a loss after one step of a network depends on what that step was told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

Loss = Callable[[Sequence[Tensor], Any], Tensor]
"""From the network's parameters, and a part of the batch, to a scalar; parts and processes add up."""


class Ahead(NamedTuple):
    """What one step ahead tells.

    Args:
        direction: α ∇_θ⁺ L(θ⁺), for each parameter.
        loss: L(θ⁺) over the whole batch.
    """

    direction: list[Tensor]
    loss: Tensor


def gradients(loss: Tensor, values: Sequence[Tensor], create_graph: bool = False) -> list[Tensor]:
    """Of a scalar; zeros for what it does not depend on."""
    found = torch.autograd.grad(loss, list(values), create_graph=create_graph, allow_unused=True)
    return [torch.zeros_like(value) if one is None else one for one, value in zip(found, values, strict=True)]


def step_ahead(gradient: Sequence[Tensor], outer: Loss, parts: Sequence[Any], values: Sequence[Tensor],
               rates: Sequence[float], pool: Callable[[Tensor], Tensor]) -> Ahead:
    """Make a step, θ⁺ = θ − α ∇J(θ), and look at the loss there.

    Args:
        gradient: ∇J(θ), of the whole batch.
        outer: L.
        parts: of the batch.
        values: θ; not changed.
        rates: α for each of them.
        pool: sums over the processes.
    """
    with torch.no_grad():
        steps = torch._foreach_mul(list(gradient), list(rates))
        ahead = [value.requires_grad_() for value in torch._foreach_sub([value.detach() for value in values], steps)]
    total, slope = torch.zeros((), device=ahead[0].device), [torch.zeros_like(value) for value in ahead]
    for part in parts:
        loss = outer(ahead, part)
        torch._foreach_add_(slope, gradients(loss, ahead))
        total = total + loss.detach()
    slope = [pool(value) for value in slope]
    return Ahead(list(torch._foreach_mul(slope, list(rates))), pool(total))


def exact_term(gradient: Sequence[Tensor], direction: Sequence[Tensor]) -> Tensor:
    """−⟨α∇L(θ⁺), ∇_θ J⟩: a scalar whose gradient by what J was told is that of L(θ⁺).

    ∂L(θ⁺)/∂θ₂ = (∂θ⁺/∂θ₂)ᵀ ∇L(θ⁺) = −∂/∂θ₂ ⟨α∇L(θ⁺), ∇_θ J(θ, θ₂)⟩ with the first factor constant: one product with
    the mixed second derivative of J.

    Args:
        gradient: ∇_θ J of a part, with its graph.
        direction: from :func:`step_ahead`.
    """
    return -torch.stack([(one * other).sum() for one, other in zip(gradient, direction, strict=True)]).sum()


def difference_term(inner: Loss, part: Any, values: Sequence[Tensor], direction: Sequence[Tensor],
                    length: float) -> Tensor:
    """−(J(θ + εd) − J(θ − εd)) / 2ε: :func:`exact_term` by central differences, without second derivatives.

    Args:
        inner: J.
        part: of the batch.
        values: θ.
        direction: d, from :func:`step_ahead`.
        length: of εd, the Euclidean norm over all parameters.
    """
    norm = torch.stack(torch._foreach_norm(list(direction))).norm()
    epsilon = length / norm.clamp_min(torch.finfo(norm.dtype).tiny ** 0.5)
    scaled = [epsilon * one for one in direction]
    fixed = [value.detach() for value in values]
    above = inner(torch._foreach_add(fixed, scaled), part)
    below = inner(torch._foreach_sub(fixed, scaled), part)
    return -(above - below) / (2 * epsilon)
