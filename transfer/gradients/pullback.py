"""The vector-Jacobian products of T cotangents in one walk through an autograd graph.

``torch.autograd.grad`` would walk the graph once for each task. This walk visits each node once, with
the cotangents of all tasks side by side: so convolutions read their weights once for all of them, and
a parameter's T gradients are there at the same time, to be used and freed before the next one's. Hooks on
tensors are not called.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from transfer.gradients.products import Convolution, Factored, Formed, Products, kernel_gradients

#: Cotangents of all tasks: one after another along the first dimension, or one by one.
Cotangents = Tensor | list[Tensor]
Sink = Callable[[Tensor, Products], None]


@torch.no_grad()
def pull_back(outputs: Sequence[Tensor], cotangents: Sequence[Tensor], parameters: Iterable[Tensor], sink: Sink,
              factors: bool = True) -> None:
    """Give ``sink`` the gradients of T scalar functions for each parameter.

    Args:
        outputs: tensors with a graph.
        cotangents: for each of them ``[T, *its shape]``.
        parameters: leaves whose gradients are wanted.
        sink: called once for each parameter that the outputs reach, with it and its products.
        factors: let :class:`transfer.gradients.products.Factored` stand for gradients where it pays.
    """
    tasks = len(cotangents[0])
    wanted = {id(value) for value in parameters}
    arriving: dict[Any, dict[int, Cotangents]] = defaultdict(dict)
    roots = []
    for output, values in zip(outputs, cotangents, strict=True):
        if output.grad_fn is not None:
            roots.append(output.grad_fn)
            _add(arriving[output.grad_fn], output.output_nr, list(values), tasks)
    edges, useful = _survey(roots, wanted)
    walk = _Walk(tasks, wanted, useful, edges, sink, factors)
    waiting = dict(edges)  # edges whose cotangents have not arrived
    ready = [root for root in dict.fromkeys(roots) if not edges[root]]
    while ready:
        node = ready.pop()
        given = arriving.pop(node, {})
        following = node.next_functions
        if hasattr(node, "variable"):
            if given and id(node.variable) in wanted:
                sink(node.variable, Formed(_together(given[0]).view(tasks, *node.variable.shape)))
            continue
        results: Sequence[Cotangents | None] = [None] * len(following)
        if given and node in useful:
            rule = RULES.get(node.name(), _one_by_one)
            results = rule(node, given, walk)
        for (child, slot), result in zip(following, results, strict=True):
            if child is None:
                continue
            if result is not None:
                _add(arriving[child], slot, result, tasks)
            waiting[child] -= 1
            if not waiting[child]:
                ready.append(child)


@torch.no_grad()
def pull_back_in_turn(outputs: Sequence[Tensor], cotangents: Sequence[Tensor], parameters: Iterable[Tensor],
                      sink: Sink) -> None:
    """As :func:`pull_back`, by one walk of torch's own engine for each task.

    For graphs that compute again what they have not saved: they do it once in a walk, and not for each node
    that is visited. All products are held at once.
    """
    chosen = list(parameters)
    rows = [torch.autograd.grad(outputs, chosen, [values[task] for values in cotangents], retain_graph=True,
                                allow_unused=True) for task in range(len(cotangents[0]))]
    for parameter, *gradients in zip(chosen, *rows, strict=True):
        if any(gradient is not None for gradient in gradients):
            sink(parameter, Formed(torch.stack([torch.zeros_like(parameter) if gradient is None else gradient
                                                for gradient in gradients])))


class _Walk:
    """What the rules for nodes need to know of the walk."""

    def __init__(self, tasks: int, wanted: set[int], useful: set[Any], edges: dict[Any, int], sink: Sink,
                 factors: bool) -> None:
        self.tasks, self.wanted, self.useful, self.edges, self.sink, self.factors = (
            tasks, wanted, useful, edges, sink, factors)

    def needs(self, node: Any, position: int) -> bool:
        """Whether anything is wanted of an input of the node."""
        child = node.next_functions[position][0]
        return child is not None and child in self.useful

    def leaf(self, node: Any, position: int) -> Tensor | None:
        """The parameter that is this input of the node, where it is its only use."""
        child = node.next_functions[position][0]
        if child is not None and hasattr(child, "variable") and self.edges[child] == 1:
            return child.variable
        return None


def _survey(roots: Sequence[Any], wanted: set[int]) -> tuple[dict[Any, int], set[Any]]:
    """For each node the edges that lead to it, and the nodes from which a wanted leaf is reached."""
    edges: dict[Any, int] = defaultdict(int)
    order, seen, stack = [], set(), [(root, False) for root in dict.fromkeys(roots)]
    while stack:
        node, left = stack.pop()
        if left:
            order.append(node)
            continue
        if node in seen:
            continue
        seen.add(node)
        stack.append((node, True))
        for child, _ in node.next_functions:
            if child is not None:
                edges[child] += 1
                if child not in seen:
                    stack.append((child, False))
    useful: set[Any] = set()
    for node in order:  # children before parents
        if hasattr(node, "variable"):
            if id(node.variable) in wanted:
                useful.add(node)
        elif any(child in useful for child, _ in node.next_functions):
            useful.add(node)
    return edges, useful


def _add(slots: dict[int, Cotangents], slot: int, values: Cotangents, tasks: int) -> None:
    """Cotangents of one output add up over its uses."""
    known = slots.get(slot)
    if known is None:
        slots[slot] = values
    elif isinstance(known, Tensor) and isinstance(values, Tensor):
        slots[slot] = known + values
    else:
        slots[slot] = list(torch._foreach_add(_apart(known, tasks), _apart(values, tasks)))


def _together(values: Cotangents) -> Tensor:
    if isinstance(values, Tensor):
        return values
    return torch.cat(values) if values[0].dim() else torch.stack(values)


def _apart(values: Cotangents, tasks: int) -> list[Tensor]:
    return list(values.tensor_split(tasks)) if isinstance(values, Tensor) else values


def _one_by_one(node: Any, given: dict[int, Cotangents], walk: _Walk) -> list[Cotangents | None]:
    """Any node: its own backward function, for one task after another, whose cotangents are then let go."""
    slots = {slot: list(_apart(given.pop(slot), walk.tasks))[::-1] for slot in list(given)}
    outputs, per_task = range(len(node._input_metadata)), []
    for _ in range(walk.tasks):
        mine = {slot: values.pop() for slot, values in slots.items()}
        result = node(*map(mine.get, outputs)) if callable(node) else _through_the_engine(node, mine)
        result = result if isinstance(result, tuple) else (result,)
        per_task.append([_as_taken(value, edge) for value, edge in zip(result, node.next_functions, strict=True)])
    return [None if column[0] is None else list(column) for column in zip(*per_task, strict=True)]


def _as_taken(gradient: Tensor | None, edge: tuple[Any, int]) -> Tensor | None:
    """A gradient as what it goes to takes it: summed over what was broadcast, in its type.

    Autograd does this between nodes; here nodes are called without it.
    """
    child, slot = edge
    if gradient is None or child is None:
        return None
    like = child.variable if hasattr(child, "variable") else child._input_metadata[slot]
    if gradient.shape != like.shape:
        gradient = gradient.sum_to_size(tuple(like.shape))
    return gradient if gradient.dtype == like.dtype else gradient.to(like.dtype)


def _through_the_engine(node: Any, cotangents: dict[int, Tensor]) -> tuple[Tensor | None, ...]:
    """A function written in Python, whose arguments need not all be tensors: torch's engine knows which are."""
    children = [GradientEdge(child, slot) if child is not None else None for child, slot in node.next_functions]
    there = [edge for edge in children if edge is not None]
    found = iter(torch.autograd.grad([GradientEdge(node, slot) for slot in cotangents], there,
                                     list(cotangents.values()), retain_graph=True, allow_unused=True))
    return tuple(None if edge is None else next(found) for edge in children)


def _convolution(node: Any, given: dict[int, Cotangents], walk: _Walk) -> Sequence[Cotangents | None]:
    """A plain two-dimensional convolution: all tasks in one call for its input, and one for its kernel."""
    inputs, kernel = node._saved_input, node._saved_weight
    if node._saved_transposed or node._saved_groups != 1 or inputs.dim() != 4:
        return _one_by_one(node, given, walk)
    call = Convolution(tuple(kernel.shape[2:]), list(node._saved_stride), list(node._saved_padding),
                       list(node._saved_dilation))
    values = given.pop(0)  # the last that holds them: each copy below is gone before the next is made
    results: list[Cotangents | None] = [None, None, None]
    into_input, parameter = walk.needs(node, 0), walk.leaf(node, 1)
    factored = (parameter is not None and walk.factors and walk.needs(node, 1)
                and Factored.pays(inputs, node._input_metadata[0].shape, walk.tasks, kernel.shape))
    if into_input or factored or walk.needs(node, 2):
        values = _together(values)
    if factored:
        walk.sink(parameter, Factored(inputs, values, walk.tasks, call, kernel.shape))
    elif walk.needs(node, 1):
        results[1] = kernel_gradients(inputs, values, walk.tasks, call, kernel.shape).flatten(0, 1)
    if walk.needs(node, 2):
        results[2] = values.unflatten(0, (walk.tasks, -1)).sum((1, 3, 4)).flatten()
    if into_input:
        size = (len(values), *inputs.shape[1:])
        results[0] = torch.nn.grad.conv2d_input(size, kernel, values, call.stride, call.padding, call.dilation)
    return results


def _relu(node: Any, given: dict[int, Cotangents], walk: _Walk) -> Sequence[Cotangents | None]:
    values, result = given.pop(0), node._saved_result
    if isinstance(values, list):
        values.reverse()
        return [[torch.ops.aten.threshold_backward(values.pop(), result, 0) for _ in range(walk.tasks)]]
    values = values.unflatten(0, (walk.tasks, -1))
    return [torch.ops.aten.threshold_backward(values, result.expand_as(values), 0).flatten(0, 1)]


#: Nodes, by name, that take all tasks at once; every other is called for each task.
RULES: dict[str, Callable[[Any, dict[int, Cotangents], _Walk], Sequence[Cotangents | None]]] = {
    "ConvolutionBackward0": _convolution,
    "ReluBackward0": _relu,
}
