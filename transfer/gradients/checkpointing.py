"""Networks that compute activations again in the backward pass, to save memory (activation checkpointing).

``torch.utils.checkpoint`` has two kinds. The reentrant one runs a backward pass inside of the backward pass,
and so knows ``loss.backward()`` alone: gradients of chosen tensors cannot be had through it. The other one hooks what
the graph saves, and works with all of autograd; but everything is computed again by each visit to the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from harness.errors import UserError

REENTRANT = "CheckpointFunctionBackward"
_HOOKED = "the network hooks the tensors that its graph saves"
T = TypeVar("T")


def refuse_reentrant(tensors: Iterable[Tensor], what: str) -> None:
    """Look through the graphs of tensors for reentrant checkpoints.

    Raises:
        UserError: there is one.
    """
    stack = [value.grad_fn for value in tensors if value.grad_fn is not None]
    seen: set[Any] = set(stack)
    while stack:
        node = stack.pop()
        if node.name() == REENTRANT:
            raise UserError(f"{what} takes gradients with respect to chosen tensors, which reentrant activation "
                            "checkpointing of the network cannot give: make it torch.utils.checkpoint.checkpoint(..., "
                            "use_reentrant=False), or switch it off")
        for child, _ in node.next_functions:
            if child is not None and child not in seen:
                seen.add(child)
                stack.append(child)


def probed(model: nn.Module, forward: Callable[[], T], restore: Callable[[], None]) -> tuple[T, bool]:
    """What a forward returns, and whether the backward pass will compute activations again.

    Where it will, the forward is done twice, this once.

    Args:
        model: the network; its buffers move once.
        forward: of it.
        restore: puts random generators back to where they were.
    """
    before = [value.clone() for value in model.buffers()]
    try:
        with torch.autograd.graph.disable_saved_tensors_hooks(_HOOKED):
            return forward(), False
    except RuntimeError as error:
        if _HOOKED not in str(error):
            raise
    _copy(model, before)
    restore()
    return forward(), True


@torch.no_grad()
def _copy(model: nn.Module, values: Sequence[Tensor]) -> None:
    for buffer, value in zip(model.buffers(), values, strict=True):
        buffer.copy_(value)
