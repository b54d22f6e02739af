"""Which module's results go into which other module, seen from the autograd graph of a dry run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mtl_heads.dry_run import dry_run
from mtl_heads.model import MultiTaskModel
from mtl_heads.output import Output
from mtl_heads.reach import parameter_names

IMAGES = "images"


@dataclass
class Trace:
    """What a network computes: results of modules, numbered, and what each is made from.

    Attributes:
        names: for each result the dotted name of its module, or ``IMAGES``.
        sources: for each result the results that it is made from.
        predictions: for each task the results that its prediction is made from.
        intermediate: for each task the results that its intermediate predictions are made from.
    """

    names: list[str] = field(default_factory=list)
    sources: list[list[int]] = field(default_factory=list)
    predictions: dict[str, list[int]] = field(default_factory=dict)
    intermediate: dict[str, list[int]] = field(default_factory=dict)


class _Watched(nn.Module):
    """A network whose images are a leaf of the autograd graph."""

    def __init__(self, model: MultiTaskModel) -> None:
        super().__init__()
        self.model = model
        self.images: Tensor | None = None

    def forward(self, images: Tensor) -> Output:
        self.images = images.requires_grad_()
        return self.model(images, **self.model.as_in_training)


class _Attached(TorchFunctionMode):
    """``detach`` does nothing: what a module reads counts here, not what its loss trains."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is Tensor.detach:
            return args[0]
        return function(*args, **(kwargs or {}))


def trace(model: MultiTaskModel) -> Trace:
    """Run the network on images without values, and read its autograd graph.

    A node of that graph belongs to the innermost module that returned it, else to the module whose
    parameters it reads; nodes of neither kind (sums, resizes between modules) are looked through.
    """
    watched = _Watched(model)
    made: dict[Any, str] = {}
    hooks = [
        part.register_forward_hook(lambda _, __, output, name=name: _mark(made, output, name))
        for name, part in model.named_modules()
        if name
    ]
    try:
        with torch.enable_grad():
            output, state = dry_run(watched, model.example_shape, _Attached)
    finally:
        for hook in hooks:
            hook.remove()
    parameters = parameter_names(model)
    owner = {
        id(value): name.removeprefix("model.").rpartition(".")[0]
        for name, value in state.items()
        if name.removeprefix("model.") in parameters
    }
    graph = _Graph(made, owner, id(watched.images))
    result = Trace()
    for task in model.task_set.all:
        first = [output.predictions[task]] if task in output.predictions else []
        others = [maps[task] for maps in output.intermediate if task in maps]
        result.predictions[task] = graph.results(value.grad_fn for value in first)
        result.intermediate[task] = graph.results(value.grad_fn for value in others)
    result.names, result.sources = graph.names, graph.sources
    return result


def _mark(made: dict[Any, str], output: Any, name: str) -> None:
    for value in _tensors(output):
        if value.grad_fn is not None:
            made.setdefault(value.grad_fn, name)  # inner modules return before outer ones


def _tensors(nest: Any) -> list[Tensor]:
    if isinstance(nest, Tensor):
        return [nest]
    if isinstance(nest, dict):
        nest = list(nest.values())
    return [value for item in nest for value in _tensors(item)] if isinstance(nest, list | tuple) else []


class _Graph:
    """Results of modules, collected backwards from outputs.

    Args:
        made: nodes that a module returned.
        owner: modules of the parameters, by the parameter's ``id``.
        images: ``id`` of the images.
    """

    def __init__(self, made: dict[Any, str], owner: dict[int, str], images: int) -> None:
        self.names: list[str] = []
        self.sources: list[list[int]] = []
        self._made, self._owner, self._images = made, owner, images
        self._moves: dict[Any, bool] = {}  # whether a node depends on the images
        self._number: dict[Any, int] = {}

    def results(self, nodes: Iterable[Any]) -> list[int]:
        """Numbers of the results that the nodes are, or are made from."""
        nodes = [node for node in nodes if node is not None]
        for node in nodes:
            self._settle(node)
        found = self._nearest(nodes)
        waiting = list(found)
        while waiting:
            node = waiting.pop()
            if node not in self._number:
                sources = self._nearest(self._inputs(node))
                self._number[node] = len(self.names)
                self.names.append(self._name(node))
                self.sources.append(sources)  # nodes, until they have their numbers
                waiting += sources
        for i, sources in enumerate(self.sources):
            self.sources[i] = [source if isinstance(source, int) else self._number[source] for source in sources]
        return [self._number[node] for node in found]

    def _nearest(self, nodes: Iterable[Any]) -> list[Any]:
        """The nodes, or those before them, that belong to a module."""
        found: list[Any] = []
        stack, seen = list(nodes), set()
        while stack:
            node = stack.pop()
            if node in seen or not self._moves[node]:
                continue
            seen.add(node)
            if self._name(node) is None:
                stack += self._inputs(node)
            else:
                found.append(node)
        return found

    def _name(self, node: Any) -> str | None:
        if hasattr(node, "variable"):
            return IMAGES
        if node in self._made:
            return self._made[node]
        stack = [below for below in self._inputs(node) if not self._moves[below]]
        while stack:  # parameters that reach this node without the images
            below = stack.pop()
            if hasattr(below, "variable"):
                return self._owner.get(id(below.variable))
            stack += self._inputs(below)
        return None

    def _settle(self, start: Any) -> None:
        """Find out which nodes below ``start`` depend on the images."""
        stack = [start]
        while stack:
            node = stack[-1]
            if node in self._moves:
                stack.pop()
            elif hasattr(node, "variable"):
                self._moves[stack.pop()] = id(node.variable) == self._images
            else:
                inputs = self._inputs(node)
                unknown = [below for below in inputs if below not in self._moves]
                if not unknown:
                    self._moves[stack.pop()] = any(self._moves[below] for below in inputs)
                stack += unknown

    @staticmethod
    def _inputs(node: Any) -> list[Any]:
        return [below for below, _ in node.next_functions if below is not None]
