"""Parts of a residual block that a task has of its own."""

from __future__ import annotations

import copy
from typing import Literal

from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn

from harness.errors import UserError
from mtl_heads.squeeze_excitation import SqueezeExcitation

_OPEN = 3.0  # sigmoid(3) = .95: a pretrained network's features are hardly changed at first


class BlockModulation(nn.Module):
    """Runs a shared residual block for one task: its squeeze-excitation, residual adapters, and norms.

    With C the block's convolutions, the residual branch is SE_t(norm_t(… C(x) + A_t(x) …)): each 3x3
    convolution has a 1x1 one beside it (Rebuffi et al., "Efficient parametrization of multi-domain deep
    neural networks", 2018), zero at first, and the branch ends in a gate (Hu et al., 2018).
    A block that has a channel attention of its own gives every task one of its kind instead.

    It holds what belongs to the task, and the block's weights stay in the backbone. So that the backbone
    remains whole and nothing in it idle, the norms and attention it came with are one task's, the owner's;
    the others' begin as copies of them.

    Args:
        block: of timm's ResNet.
        owner: whether the block's own norms and attention are this task's.
        squeeze_excite: gate the residual branch.
        adapters: have 1x1 convolutions beside the 3x3 ones.
        norm: ``"task"`` or ``"shared"``.
        reduction: of the gates.

    Raises:
        UserError: what the block computes is not known.
    """

    def __init__(
        self,
        block: nn.Module,
        *,
        owner: bool,
        squeeze_excite: bool = True,
        adapters: bool = True,
        norm: Literal["task", "shared"] = "task",
        reduction: int = 16,
    ) -> None:
        super().__init__()
        if type(block) not in (BasicBlock, Bottleneck):
            raise UserError(
                "astmt changes residual blocks inside, and knows those of timm's ResNet, ResNeXt, SE-ResNet and "
                f"ECA-ResNet, not {type(block).__module__.rpartition('.')[2]}.{type(block).__name__}: choose one"
            )
        own: dict[str, nn.Module] = {}
        if norm == "task":
            own |= {name: part for name, part in _layers(block) if _is_norm(part)}
        if squeeze_excite and block.se is not None:
            own["se"] = block.se
        self.own = nn.ModuleDict({} if owner else {name: copy.deepcopy(part) for name, part in own.items()})
        wide = [name for name, part in block.named_children() if getattr(part, "kernel_size", None) == (3, 3)]
        self.adapters = nn.ModuleDict({name: _adapter(getattr(block, name)) for name in wide if adapters})
        self.gate: nn.Module = nn.Identity()
        if squeeze_excite and block.se is None:
            channels = (block.conv3 if isinstance(block, Bottleneck) else block.conv2).out_channels
            self.gate = SqueezeExcitation(channels, reduction)
            nn.init.constant_(self.gate.squeeze[-2].bias, _OPEN)

    def forward(self, block: nn.Module, maps: Tensor) -> Tensor:
        """What the block makes of ``[B, C, h, w]`` for this task."""
        branch = shortcut = maps
        for name, part in _layers(block):
            layer = self.own[name] if name in self.own else part
            if name.startswith(_SHORTCUT):
                shortcut = layer(shortcut)
            elif name in self.adapters:
                branch = layer(branch) + self.adapters[name](branch)
            else:
                branch = layer(branch)
        branch = self.gate(branch)
        if block.drop_path is not None:
            branch = block.drop_path(branch)
        return _activation(block)(branch + shortcut)


_SHORTCUT = "downsample_"


def _layers(block: nn.Module) -> list[tuple[str, nn.Module]]:
    """Layers of the residual branch and then of the shortcut, in order of execution.

    timm's blocks hold them in that order, but for the activation after the sum and the drop path.
    """
    last = _activation(block)
    skipped = (last, block.downsample, block.drop_path)
    branch = [(name, part) for name, part in block.named_children() if not any(part is one for one in skipped)]
    shortcut = [] if block.downsample is None else block.downsample.named_children()
    return [*branch, *((f"{_SHORTCUT}{name}", part) for name, part in shortcut)]


def _activation(block: nn.Module) -> nn.Module:
    return block.act3 if isinstance(block, Bottleneck) else block.act2


def _is_norm(part: nn.Module) -> bool:
    return isinstance(part, nn.modules.batchnorm._NormBase | nn.GroupNorm | nn.LayerNorm)


def _adapter(convolution: nn.Conv2d) -> nn.Conv2d:
    """1x1 convolution beside another, zero at first."""
    adapter = nn.Conv2d(
        convolution.in_channels,
        convolution.out_channels,
        1,
        stride=convolution.stride,
        groups=convolution.groups,
        bias=False,
    )
    nn.init.zeros_(adapter.weight)
    return adapter
