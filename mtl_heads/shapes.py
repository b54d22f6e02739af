"""Layers whose results have a known shape, passed by in runs without values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class ShapesOnly(TorchFunctionMode):
    """Norms, activations and resizes of tensors on the ``meta`` device become nodes that only have the right shape.

    Torch derives their shapes by Python programs that take up to some milliseconds each, the larger part
    of a run without values. What reads what is the same in the autograd graph, and none of them is a
    multiply-add in torch's counter.
    """

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in _RESULTS and args and isinstance(args[0], Tensor) and args[0].is_meta:
            make = _RESULTS[function](*args, **kwargs)
            if make is not None:
                read = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
                return _Node.apply(make, *read)
        return function(*args, **kwargs)


class _Node(torch.autograd.Function):
    """A tensor that stands for one that is made from others; it has no derivative."""

    @staticmethod
    def forward(ctx: Any, make: Make, *read: Tensor) -> Tensor:
        return make(read[0])


Make = Callable[[Tensor], Tensor]
"""From the first argument of a function to a tensor like its result."""


def _activation(*_: Any, **__: Any) -> Make:
    return torch.empty_like


def _batch_norm(
    value: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    *_: Any,
    **__: Any,
) -> Make | None:
    """In evaluation mode; torch checks a batch that is normalised by its own statistics."""
    fits = running_mean is not None and value.dim() > 1 and value.shape[1] == running_mean.shape[0]
    return _shaped(value.shape) if fits and not training else None


def _group_norm(
    value: Tensor, num_groups: int, weight: Tensor | None = None, *_: Any, **__: Any
) -> Make | None:
    fits = value.dim() > 1 and value.shape[1] % num_groups == 0 and (weight is None or len(weight) == value.shape[1])
    return _shaped(value.shape) if fits else None


def _layer_norm(value: Tensor, normalized_shape: Sequence[int], *_: Any, **__: Any) -> Make | None:
    fits = tuple(value.shape[-len(normalized_shape):]) == tuple(normalized_shape)
    return (lambda value: value.new_empty(value.shape)) if fits else None


def _resized(
    value: Tensor, size: Any = None, scale_factor: Any = None, *_: Any, **options: Any
) -> Make | None:
    """To a size, or by a factor."""
    if value.dim() != 4 or (size is None) == (scale_factor is None) or options.get("recompute_scale_factor"):
        return None
    given = size if scale_factor is None else scale_factor
    sides = tuple(given) if isinstance(given, Sequence) else (given, given)
    if len(sides) != 2:
        return None
    if scale_factor is not None:
        sides = tuple(int(side * factor) for side, factor in zip(value.shape[2:], sides, strict=True))
    fits = all(isinstance(side, int) and side > 0 for side in (*sides, *value.shape[2:]))
    return _shaped((*value.shape[:2], *sides)) if fits else None


def _shaped(shape: Sequence[int]) -> Make:
    """Of that shape; channels last where the argument has them so."""

    def make(value: Tensor) -> Tensor:
        last = value.dim() == 4 and value.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if last and not value.is_contiguous() else torch.contiguous_format
        return torch.empty(shape, dtype=value.dtype, device=value.device, memory_format=layout)

    return make


#: For each function what makes a tensor like its result, from its arguments; ``None``: torch is to say.
_RESULTS: dict[Any, Callable[..., Make | None]] = {
    F.batch_norm: _batch_norm,
    F.group_norm: _group_norm,
    F.interpolate: _resized,
    F.layer_norm: _layer_norm,
    **dict.fromkeys((F.gelu, F.hardsigmoid, F.hardswish, F.relu, F.relu6), _activation),
}
