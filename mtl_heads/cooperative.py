"""The network of cooperative learning."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from timm.layers import GluMlp
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mtl_heads.baseline import Baseline
from mtl_heads.model import MultiTaskModel
from mtl_heads.registry import ARCHITECTURES
from mtl_heads.tasks import Tasks

#: Layers whose weights have one row per output channel.
_ROWS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
#: What timm calls layers that compute queries, keys and values, or two of them: how many.
_FUSED = {"qkv": 3, "kv": 2, "qk": 2}


class Parts(nn.Module):
    """A parameter that is kept in parts, each with its share of the output channels.

    Concatenating the parts of a layer's weight is the same as concatenating the features of one layer
    per part, and costs one convolution instead of several. Where a layer computes several things side by
    side, such as queries, keys and values, each part has its share of each of them.

    Args:
        count: number of parts.
        sections: output channels of each thing that the layer computes.
    """

    def __init__(self, count: int, sections: Sequence[int]) -> None:
        super().__init__()
        self.count = count
        self.sections = list(sections)

    def forward(self, *parts: Tensor) -> Tensor:
        if len(self.sections) == 1:
            return torch.cat(parts)
        shares = [part.split(sizes) for part, sizes in zip(parts, self._sizes(), strict=True)]
        return torch.cat([share[i] for i in range(len(self.sections)) for share in shares])

    def right_inverse(self, whole: Tensor) -> list[Tensor]:
        """The parts, as even as they can be."""
        shares = [section.tensor_split(self.count) for section in whole.split(self.sections)]
        return [torch.cat([share[i] for share in shares]) for i in range(self.count)]

    def _sizes(self) -> list[list[int]]:
        """Of each part its channels of each section."""
        return [
            [size // self.count + (i < size % self.count) for size in self.sections] for i in range(self.count)
        ]


def sections(module: nn.Module, channels: int, parent: nn.Module | None = None, name: str = "") -> list[int]:
    """Output channels of each thing that a layer computes; most layers compute one.

    Where those of each head of an attention follow one another, they count as one thing: tasks own heads.

    Args:
        module: the layer.
        channels: that it has.
        parent: what the layer is in.
        name: of the layer in it.
    """
    count = 1
    if isinstance(module, nn.MultiheadAttention):  # weights of its own
        count = 3
    elif isinstance(parent, GluMlp) and name == "fc1":  # values and gates
        count = 2
    elif name in _FUSED and isinstance(module, _ROWS):
        by_head = getattr(parent, "head_first", False) or hasattr(parent, "key_dim")
        count = 1 if by_head else _FUSED[name]
        if isinstance(module, nn.Linear) and channels == 2 * module.in_features:  # queries come from elsewhere
            count = 2
    elif name == "in_proj" and hasattr(parent, "in_split"):  # an MLP beside the attention
        return list(parent.in_split)
    return [channels // count] * count if channels % count == 0 else [channels]


@ARCHITECTURES.register("cooperative")
class Cooperative(Baseline):
    """An encoder whose channels are divided evenly among the tasks, layer by layer, and a head per task.

    Each task owns a part of every layer's output channels; the parts of all tasks together are what
    the next layer and all heads read (Wu et al. 2023, section 2.2.3 and equations 1 and 2). So every
    loss reaches the whole encoder, and :meth:`encoder_parameters` says which part a task may train.
    In transformers each has its share of the queries, the keys and the values.

    A layer with fewer channels than tasks, or a weight that has no output channels (a position
    embedding), goes to the tasks that own least so far.

    Args:
        backbone: timm name, or a module that returns a list of features.
        tasks: any.
        head: head of the dense tasks; image tasks have a linear one.
        head_options: options of that head.
        neck: what stands between the backbone and the heads.
        neck_options: options of the neck.
        output_stride: stride of the coarsest features, 8, 16 or 32; by default the backbone's own.
        backbone_options: keyword arguments of ``timm.create_model``.
    """

    shared_representation = False

    def __init__(
        self,
        backbone: str | nn.Module,
        tasks: Tasks,
        *,
        head: str = "deeplab",
        head_options: dict[str, Any] | None = None,
        neck: str = "none",
        neck_options: dict[str, Any] | None = None,
        output_stride: int | None = None,
        backbone_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            backbone,
            tasks,
            head=head,
            head_options=head_options,
            neck=neck,
            neck_options=neck_options,
            output_stride=output_stride,
            backbone_options=backbone_options,
        )
        self._owned = _divide(self.encoder, tasks.all)

    @property
    def backbone(self) -> nn.Module:
        """The timm model as it was before it was divided: a copy, with the weights of all tasks."""
        whole = copy.deepcopy(self.encoder.backbone)
        for module in list(whole.modules()):
            if parametrize.is_parametrized(module):
                _unite(module)
        return whole

    def vandenhende_prefixes(self) -> dict[str, str]:
        return MultiTaskModel.vandenhende_prefixes(self)  # the baseline's would not fit

    def encoder_parameters(self, task: str) -> list[nn.Parameter]:
        """The part of the encoder that ``task`` owns; each parameter of the encoder has one owner."""
        self.task_set.select([task])
        return [self.encoder.get_parameter(name) for name in self._owned[task]]


def _unite(module: nn.Module) -> None:
    """Make a divided layer an ordinary one.

    Not by ``remove_parametrizations``, which takes the weights of the layers that this is a copy of too.
    """
    values = {name: getattr(module, name).detach() for name in module.parametrizations}
    module.__class__ = parametrize.type_before_parametrizations(module)
    del module.parametrizations
    for name, value in values.items():
        module.register_parameter(name, nn.Parameter(value))


def _divide(encoder: nn.Module, tasks: Sequence[str]) -> dict[str, list[str]]:
    """Divide every parameter of an encoder among tasks; returns the names of each task's parts."""
    owned: dict[str, list[str]] = {task: [] for task in tasks}
    sizes = dict.fromkeys(tasks, 0)
    for prefix, module in list(encoder.named_modules()):
        above, _, own = prefix.rpartition(".")
        parent = encoder.get_submodule(above) if prefix else None
        for name, value in list(module.named_parameters(recurse=False)):
            matrix = (name == "weight" and isinstance(module, _ROWS)) or name == "in_proj_weight"
            parts_of = sections(module, len(value), parent, own) if matrix or value.dim() == 1 else [1]
            count = min(len(tasks), *parts_of)
            path = f"{prefix}." if prefix else ""
            if count == 1:
                parts = [f"{path}{name}"]
            else:
                parametrize.register_parametrization(module, name, Parts(count, parts_of))
                parts = [f"{path}parametrizations.{name}.original{i}" for i in range(count)]
            # A channel has the same owner in every layer, unless there are not enough for all tasks.
            owners = tasks if count == len(tasks) else sorted(tasks, key=sizes.__getitem__)[:count]
            for task, part in zip(owners, parts, strict=True):
                owned[task].append(part)
                sizes[task] += encoder.get_parameter(part).numel()
    return owned
