"""Small pieces that heads, necks and architectures are made of."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import UserError


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize of ``[B, C, h, w]`` to ``size`` with pixel centres kept (``align_corners=False``)."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


def conv_bn_relu(inputs: int, outputs: int, kernel: int = 1, dilation: int = 1) -> nn.Sequential:
    """Convolution without bias at the same size, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2 * dilation, dilation=dilation, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class PooledBatchNorm2d(nn.BatchNorm2d):
    """Batch norm that also trains on a single value per channel.

    After pooling to one pixel, a batch of one image (the last partial batch of an epoch) has no
    variance and ordinary batch norm raises. Here the running statistics normalise it, and stay.
    """

    def forward(self, values: Tensor) -> Tensor:
        if self.training and values.shape[0] * values.shape[2] * values.shape[3] == 1:
            return F.batch_norm(
                values, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(values)


class PerTask(nn.ModuleDict):
    """One module per task, whatever the task is called.

    ``nn.ModuleDict`` refuses names of its own attributes, yet ``train`` is a class of Cityscapes: such
    a task's module is kept under ``train~``, which no task can be called.

    Raises:
        UserError: two tasks would have the same name in state dicts.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.tasks = tuple(modules)
        for task, module in modules.items():
            if task in self:
                raise UserError(f"task '{task}' has the name of another one's modules: give it another name")
            self[task] = module

    @staticmethod
    def key(task: str) -> str:
        """The name under which the module of ``task`` is in state dicts."""
        return f"{task}~" if task in _RESERVED else task

    def __getitem__(self, task: str) -> nn.Module:
        return self._modules[self.key(task)]

    def __setitem__(self, task: str, module: nn.Module) -> None:
        self.add_module(self.key(task), module)

    def __contains__(self, task: str) -> bool:
        return self.key(task) in self._modules


#: Names that a module of a task cannot have: attributes of this class, and of those that are derived from it.
_RESERVED = frozenset([*dir(nn.ModuleDict()), *vars(PerTask), "tasks", "vandenhende_prefix"])
