"""Run a network without computing anything, to learn its shapes, its graph or its cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mtl_heads.shapes import ShapesOnly


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; afterwards every submodule has its own mode back."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def input_channels(module: nn.Module) -> int:
    """Channels of the images that a network reads: those of its first convolution, else 3."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            return part.in_channels
    return 3


def dry_run(
    module: nn.Module,
    images: tuple[int, ...],
    watch: Callable[[], AbstractContextManager] = nullcontext,
    options: Mapping[str, Any] | None = None,
    really: bool = True,
) -> tuple[Any, dict[str, Tensor]]:
    """Run ``module`` in evaluation mode on images of a given shape, without its weights.

    Parameters and buffers are stood in for by tensors on torch's ``meta`` device, which have shapes
    and an autograd graph but no values: it costs neither arithmetic nor memory, and the module's
    own state is out of reach. A module that holds plain tensors of its own cannot run so; it runs
    really, on one batch of zeros, where it is.

    Args:
        module: called as ``module(images)``.
        images: shape of the images ``[B, C, H, W]``.
        watch: makes the context of each attempt to run; the last one it made saw the run that succeeded.
        options: keyword arguments of the call.
        really: run really where it cannot run without values; otherwise that is an error.

    Returns:
        The module's output, and by name the tensors that took the place of its parameters and buffers;
        those of parameters require gradients even where the module's are frozen, unless gradients are
        switched off.
    """
    options = dict(options or {})
    device = next((value.device for value in module.parameters()), torch.device("cpu"))
    graph = torch.set_grad_enabled(torch.is_grad_enabled())  # leaving inference mode would enable it
    with evaluating(module), torch.inference_mode(False), graph, torch.compiler.set_stance("force_eager"):
        state = _stand_in(module, lambda value: torch.empty_like(value, device="meta"))
        try:
            with ShapesOnly(), watch():
                return functional_call(module, state, (torch.empty(images, device="meta"),), options), state
        except (RuntimeError, NotImplementedError, TypeError) as error:
            if not really:
                raise
            state = _stand_in(module, lambda value: value.detach().clone())
            try:
                with watch():
                    return functional_call(module, state, (torch.zeros(images, device=device),), options), state
            except Exception:
                raise error from None  # a wrong size fails both ways, and the first message is plainer


def _stand_in(module: nn.Module, make: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """New tensors in place of a module's state; those of parameters require gradients where there are any.

    Where there are none, a view of a leaf would still require them, and have no node in the graph: torch's
    counter stumbles over a module that returns one.
    """
    state = {name: make(value) for name, value in module.named_buffers()}
    for name, value in module.named_parameters():
        state[name] = make(value).requires_grad_(value.is_floating_point() and torch.is_grad_enabled())
    return state
