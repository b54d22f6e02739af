"""Which tasks' losses reach which parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mtl_heads.dry_run import dry_run


class Reach(NamedTuple):
    """Result of :func:`reach`; parameters are named as :func:`parameter_names` names them.

    Args:
        tasks: for each parameter the tasks whose loss reaches it.
        layers: parameters of each layer with a weight matrix or kernel, in order of execution.
    """

    tasks: dict[str, frozenset[str]]
    layers: list[list[str]]


def parameter_names(module: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters by name; names do not change when a part of the network is compiled."""
    return {name.replace("_orig_mod.", ""): value for name, value in module.named_parameters()}


def reach(model: nn.Module, shape: tuple[int, int, int, int]) -> Reach:
    """Follow the autograd graph from each task's outputs down to the parameters.

    This is the definition itself ("reached by that task's loss alone"), so no architecture has to
    declare what it shares. It runs on tensors without values (:func:`mtl_heads.dry_run.dry_run`).

    Args:
        model: a :class:`mtl_heads.model.MultiTaskModel`.
        shape: shape of the images ``[B, C, H, W]`` to run it on.
    """
    executed: list[nn.Module] = []
    prefix = {part: name.replace("_orig_mod.", "") for name, part in model.named_modules()}
    matrices = [part for part in prefix if any(p.dim() >= 2 for p in part.parameters(recurse=False))]
    hooks = [part.register_forward_hook(lambda part, *_: executed.append(part)) for part in matrices]
    try:
        with torch.enable_grad():
            output, stand_in = dry_run(model, shape, options=model.as_in_training)
    finally:
        for hook in hooks:
            hook.remove()
    name_of = {id(value): name.replace("_orig_mod.", "") for name, value in stand_in.items()}
    tasks: dict[str, set[str]] = {name: set() for name in parameter_names(model)}
    for task in model.task_set.all:
        for leaf in _leaves(output.of(task)):
            if id(leaf) in name_of:
                tasks[name_of[id(leaf)]].add(task)
    layers = [
        [f"{prefix[part]}.{name}".lstrip(".") for name, _ in part.named_parameters(recurse=False)]
        for part in dict.fromkeys(reversed(executed))  # the last execution counts
    ][::-1]
    return Reach({name: frozenset(found) for name, found in tasks.items()}, layers)


def _leaves(outputs: Iterable[Tensor]) -> list[Tensor]:
    """Leaf tensors that the graph of the outputs ends in."""
    found: list[Tensor] = []
    seen = {output.grad_fn for output in outputs if output.grad_fn is not None}
    stack = list(seen)
    while stack:
        node = stack.pop()
        if hasattr(node, "variable"):  # an AccumulateGrad node
            found.append(node.variable)
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                stack.append(following)
    return found
