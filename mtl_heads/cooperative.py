"""The network of cooperative learning."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mtl_heads.baseline import Baseline
from mtl_heads.model import MultiTaskModel
from mtl_heads.registry import ARCHITECTURES
from mtl_heads.tasks import Tasks

#: Layers whose weights have one row per output channel.
_ROWS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


class Parts(nn.Module):
    """A parameter that is kept in parts, a block of output channels each.

    Concatenating the parts of a layer's weight is the same as concatenating the features of one layer
    per part, and costs one convolution instead of several.

    Args:
        count: number of parts.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, *parts: Tensor) -> Tensor:
        return torch.cat(parts)

    def right_inverse(self, whole: Tensor) -> list[Tensor]:
        """The parts, as even as they can be."""
        return [part.clone() for part in whole.tensor_split(self.count)]


@ARCHITECTURES.register("cooperative")
class Cooperative(Baseline):
    """An encoder whose channels are divided evenly among the tasks, layer by layer, and a head per task.

    Each task owns a part of every layer's output channels; the parts of all tasks together are what
    the next layer and all heads read (Wu et al. 2023, section 2.2.3 and equations 1 and 2). So every
    loss reaches the whole encoder, and :meth:`encoder_parameters` says which part a task may train.

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
        for name, value in list(module.named_parameters(recurse=False)):
            rows = value.dim() == 1 or (name == "weight" and isinstance(module, _ROWS))
            count = min(len(tasks), len(value)) if rows else 1
            path = f"{prefix}." if prefix else ""
            if count == 1:
                parts = [f"{path}{name}"]
            else:
                parametrize.register_parametrization(module, name, Parts(count))
                parts = [f"{path}parametrizations.{name}.original{i}" for i in range(count)]
            # A channel has the same owner in every layer, unless there are not enough for all tasks.
            owners = tasks if count == len(tasks) else sorted(tasks, key=sizes.__getitem__)[:count]
            for task, part in zip(owners, parts, strict=True):
                owned[task].append(part)
                sizes[task] += encoder.get_parameter(part).numel()
    return owned
