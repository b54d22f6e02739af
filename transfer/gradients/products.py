"""The gradients of all tasks for one parameter: formed, or as the two factors that they are a product of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Products(Protocol):
    """The gradients of T losses for one parameter."""

    def gramian(self) -> Tensor:
        """Their inner products ``[T, T]``, in float32 at least."""

    def weighted(self, weights: Tensor) -> Tensor:
        """Their sum with ``weights`` ``[T]``, shaped like the parameter."""

    def rows(self) -> Tensor:
        """All of them ``[T, P]``."""

    def row(self, task: int) -> Tensor:
        """That of one loss, shaped like the parameter."""


@dataclass
class Formed:
    """Gradients as they are.

    Args:
        values: ``[T, *shape of the parameter]``.
    """

    values: Tensor

    @torch.no_grad()
    def gramian(self) -> Tensor:
        rows = full(self.rows())
        return rows @ rows.T

    @torch.no_grad()
    def weighted(self, weights: Tensor) -> Tensor:
        return weighted_sum(self.rows(), weights).view(self.values.shape[1:])

    @torch.no_grad()
    def rows(self) -> Tensor:
        return self.values.reshape(len(self.values), -1)  # a scalar parameter has values of [T]

    def row(self, task: int) -> Tensor:
        return self.values[task]


@dataclass
class Convolution:
    """How a convolution was called: what its gradients are made from."""

    kernel: tuple[int, ...]
    stride: list[int]
    padding: list[int]
    dilation: list[int]


@dataclass
class Factored:
    """Gradients of a convolution's kernel as their factors: its input, and the cotangents of its output.

    With X the unfolded input ``[n, K]`` (n places, K values under the kernel) and Y_t the cotangents
    ``[n, O]`` of task t, the gradient is Y_tᵀX and an inner product is ⟨Y_iY_jᵀ, XXᵀ⟩: for few places
    and a large kernel that is far less work and memory than to form the gradients. And their weighted
    sum is one gradient, of the weighted cotangents.

    Args:
        inputs: of the convolution ``[B, C, H, W]``.
        cotangents: ``[T·B, O, h, w]``.
        tasks: T.
        call: of the convolution.
        shape: of the kernel.
    """

    inputs: Tensor
    cotangents: Tensor
    tasks: int
    call: Convolution
    shape: torch.Size

    @staticmethod
    def pays(inputs: Tensor, output: Sequence[int], tasks: int, shape: torch.Size) -> bool:
        """Whether this is less work, and less memory, than to form the gradients.

        Args:
            inputs: of the convolution.
            output: shape of what it gave ``[B, O, h, w]``.
            tasks: T.
            shape: of the kernel.
        """
        places = len(inputs) * output[2] * output[3]
        out, under = shape[0], shape[1:].numel()
        work = places**2 * under + (tasks * places) ** 2 * out
        return work < tasks * places * out * under and (tasks * places) ** 2 < tasks * out * under

    @torch.no_grad()
    def gramian(self) -> Tensor:
        call = self.call
        patches = F.unfold(full(self.inputs), call.kernel, call.dilation, call.padding, call.stride)
        patches = patches.transpose(1, 2).flatten(0, 1)
        places = len(patches)
        outer = full(self.cotangents).flatten(2).transpose(1, 2).reshape(self.tasks * places, -1)
        outer = (outer @ outer.T).view(self.tasks, places, self.tasks, places)
        return torch.einsum("inJm,nm->iJ", outer, patches @ patches.T)

    @torch.no_grad()
    def weighted(self, weights: Tensor) -> Tensor:
        cotangents = self.cotangents.unflatten(0, (self.tasks, -1))
        return kernel_gradient(self.inputs, weighted_sum(cotangents, weights), self.call, self.shape)

    @torch.no_grad()
    def rows(self) -> Tensor:
        return kernel_gradients(self.inputs, self.cotangents, self.tasks, self.call, self.shape).flatten(1)

    @torch.no_grad()
    def row(self, task: int) -> Tensor:
        return kernel_gradient(self.inputs, self.cotangents.unflatten(0, (self.tasks, -1))[task], self.call, self.shape)


def full(values: Tensor) -> Tensor:
    """In float32 at least: inner products of half-precision values need its range and digits."""
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def weighted_sum(values: Tensor, weights: Tensor) -> Tensor:
    """Σ_t w_t v_t of values ``[T, …]``, in their type.

    Weights may be out of the range of half precision (Nash-MTL's are the inverse of the gradients' norms) where their
    products are not: those are added up in float32.
    """
    if full(values) is values:
        return torch.tensordot(weights.to(values), values, 1)
    total = torch.zeros(values.shape[1:], device=values.device)
    for value, weight in zip(values, weights.to(total), strict=True):
        total.addcmul_(value.float(), weight)
    return total.to(values.dtype)


def kernel_gradient(inputs: Tensor, cotangents: Tensor, call: Convolution, shape: torch.Size) -> Tensor:
    """The gradient of a convolution's kernel."""
    return torch.nn.grad.conv2d_weight(inputs, shape, cotangents, call.stride, call.padding, call.dilation)


def kernel_gradients(inputs: Tensor, cotangents: Tensor | list[Tensor], tasks: int, call: Convolution,
                     shape: torch.Size) -> Tensor:
    """The gradients ``[T, *shape]`` of a convolution's kernel.

    In one call: as if there were T times as many output channels, so that the input is read once.

    Args:
        inputs: of the convolution.
        cotangents: ``[T·B, O, h, w]``, or T of ``[B, O, h, w]``.
        tasks: T.
        call: of the convolution.
        shape: of the kernel.
    """
    wide = torch.cat(cotangents, 1) if isinstance(cotangents, list) else \
        cotangents.unflatten(0, (tasks, -1)).transpose(0, 1).flatten(1, 2)
    return kernel_gradient(inputs, wide, call, torch.Size((tasks * shape[0], *shape[1:]))).view(tasks, *shape)
