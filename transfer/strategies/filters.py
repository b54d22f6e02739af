"""The layers that all tasks share, and where the output of their filters can be changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from harness.errors import UserError
from mtl_heads.dry_run import dry_run
from mtl_heads.model import MultiTaskModel
from mtl_heads.registry import ARCHITECTURES

# What may stand between a convolution and the norm that reads it: another view or layout of the same values.
_VIEWS = ("Permute", "Transpose", "View", "UnsafeView", "Reshape", "Clone", "ToCopy", "Alias")


@dataclass
class FilterLayer:
    """A shared layer with filters.

    Attributes:
        name: of the layer in the network.
        module: the convolution, or the linear layer on each cell of a map, which is a 1x1 convolution.
        filters: how many it has.
        site: the module whose input or output has the filters' values after the norm and before the activation.
        before: whether it is the input.
        channels_last: whether the values there are ``[B, h, w, C]``.
    """

    name: str
    module: nn.Module
    filters: int
    site: nn.Module
    before: bool
    channels_last: bool

    def kernels(self) -> Tensor:
        """``[S, …]``: a row for each filter, float64 on the CPU."""
        weight = self.module.weight.detach()
        weight = weight.transpose(0, 1) if isinstance(self.module, nn.ConvTranspose2d) else weight
        return weight.double().cpu().reshape(len(weight), -1)


def shared_layers(model: MultiTaskModel) -> list[FilterLayer]:
    """The layers of the encoder that all tasks share, in order of execution.

    These are what ``model.encode`` runs: convolutions, and linear layers on maps (ConvNeXt's). Where a norm
    reads a layer's output, the filters' values are taken behind the norm, inside it if it has an activation
    of its own; elsewhere they are the layer's output. What works on maps of one cell, where the encoder gives
    larger ones, is a gate (squeeze-excitation) and no such layer; nor is one with a single filter.

    Args:
        model: a network; it is not changed.

    Raises:
        UserError: the tasks share no encoder, or it is no convolutional one.
    """
    name = ARCHITECTURES.name_of(type(model))
    if not model.shared_representation:
        raise UserError("a partition divides the filters of an encoder that all tasks share, and architecture "
                        f"'{name}' has parts of it for each task: choose --partition.name full, or another "
                        "architecture")
    trace = _trace(model)
    if trace.attends:
        raise UserError(f"a partition divides the filters of convolutions, and the encoder of architecture '{name}' "
                        "has attention between positions, or layers on tokens, which are none: choose a convolutional "
                        "backbone (ResNet, EfficientNet, HRNet, ConvNeXt), or --partition.name full")
    names = {part: key for key, part in model.named_modules()}
    layers = []
    for module, (filters, cells) in trace.layers.items():
        if filters == 1 or cells == 1 < trace.smallest:
            continue
        norm, permuted = trace.norms.get(module, (None, False))
        channels_last = permuted or isinstance(module, nn.Linear)
        site, before = norm or module, False
        if norm is not None and isinstance(getattr(norm, "act", None), nn.Module):  # timm's norms with activation
            site, before = norm.act, True
        layers.append(FilterLayer(names[module], module, filters, site, before, channels_last))
    if not layers:
        raise UserError(f"a partition divides the filters of convolutions, and the encoder of architecture '{name}' "
                        "has none: choose another backbone, or --partition.name full")
    return layers


class _Trace:
    """What a run of the encoder shows.

    Attributes:
        layers: number of filters and of cells of the map of each layer, in order of execution.
        norms: of layers whose output a norm reads: the norm, and whether it reads it with channels last.
        smallest: cells of the smallest map that the encoder returns.
        attends: it has attention, or layers on tokens.
    """

    def __init__(self) -> None:
        self.smallest = 1
        self.clear()

    def clear(self) -> None:
        self.layers: dict[nn.Module, tuple[int, int]] = {}
        self.norms: dict[nn.Module, tuple[nn.Module, bool]] = {}
        self.attends = False
        self._made: dict[Any, nn.Module] = {}  # layers by the node of the graph that made their output

    def layer(self, module: nn.Module, _: Any, output: Tensor) -> None:
        linear = isinstance(module, nn.Linear)
        if linear and output.dim() != 4:
            self.attends |= output.dim() == 3
            return
        filters, grid = (output.shape[3], output.shape[1:3]) if linear else (output.shape[1], output.shape[2:])
        self.layers.setdefault(module, (filters, grid.numel()))
        self._made[output.grad_fn] = module

    def norm(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        node, permuted = getattr(inputs[0], "grad_fn", None), False
        while node is not None and node not in self._made and node.name().startswith(_VIEWS):
            permuted |= node.name().startswith("Permute")
            node = node.next_functions[0][0]
        if node in self._made:
            # A layer that several norms read has no one place behind its norm.
            layer = self._made[node]
            known = self.norms.get(layer, (module, permuted))
            self.norms[layer] = (module, permuted) if known[0] is module else (None, False)


class _Encode(nn.Module):
    """The encoder of a network as a module."""

    def __init__(self, model: MultiTaskModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Any:
        return self.model.encode(images)


class _Attention(TorchDispatchMode):
    """Tells the trace of products of batches of matrices, which only attention has."""

    def __init__(self, trace: _Trace) -> None:
        super().__init__()
        self.trace = trace
        trace.clear()  # of an attempt that failed

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.trace.attends |= any(word in str(function) for word in ("bmm", "scaled_dot_product"))
        return function(*args, **(kwargs or {}))


def _trace(model: MultiTaskModel) -> _Trace:
    trace = _Trace()
    hooks = []
    for part in model.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            hooks.append(part.register_forward_hook(trace.layer))
        elif "Norm" in type(part).__name__:  # timm's many kinds have no base class
            hooks.append(part.register_forward_pre_hook(trace.norm))
    try:
        with torch.enable_grad():
            features, _ = dry_run(_Encode(model), model.example_shape, lambda: _Attention(trace))
    finally:
        for hook in hooks:
            hook.remove()
    maps = [value for value in tree_leaves(features) if isinstance(value, Tensor) and value.dim() == 4]
    trace.smallest = min((value.shape[2:].numel() for value in maps), default=1)
    return trace
