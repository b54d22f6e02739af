"""Forward passes with other values in the place of parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Replacement:
    """Puts tensors in the place of a network's parameters for the time of a forward.

    The parameters are not written to, so that graphs of several forwards with different values live side by side;
    gradients flow into the graphs of the values.

    Args:
        model: the network.
    """

    def __init__(self, model: nn.Module) -> None:
        self._places: dict[int, list[tuple[nn.Module, str]]] = {}
        for module in model.modules():
            for name, value in module._parameters.items():
                if value is not None:
                    self._places.setdefault(id(value), []).append((module, name))

    @contextmanager
    def __call__(self, parameters: Sequence[nn.Parameter], values: Sequence[Tensor]) -> Iterator[None]:
        """Inside, the network reads ``values`` where it has ``parameters``."""
        self._put(parameters, values)
        try:
            yield
        finally:
            self._put(parameters, parameters)

    def _put(self, parameters: Sequence[nn.Parameter], values: Sequence[Tensor]) -> None:
        for parameter, value in zip(parameters, values, strict=True):
            for module, name in self._places[id(parameter)]:
                module._parameters[name] = value  # as torch.func.functional_call does


def with_noise(values: Sequence[Tensor], bound: float, seed: int) -> list[Tensor]:
    """Each value plus noise from U(−bound, bound); the same on every process.

    The noise is drawn at once and on the device, since it is as large as the network.
    """
    if not values:
        return []
    first = values[0]
    generator = torch.Generator(first.device).manual_seed(seed)
    sizes = [value.numel() for value in values]
    flat = torch.empty(sum(sizes), dtype=first.dtype, device=first.device).uniform_(-bound, bound, generator=generator)
    noise = [part.view(value.shape).to(value.dtype) for part, value in zip(flat.split(sizes), values, strict=True)]
    return list(torch._foreach_add(list(values), noise))
