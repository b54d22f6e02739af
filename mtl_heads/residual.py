"""The residual blocks of an encoder, for architectures that reach inside its stages."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from harness.errors import UserError
from mtl_heads.backbones import called
from mtl_heads.dry_run import dry_run
from mtl_heads.encoder import Encoder

_FAMILIES = "ResNet, ResNeXt, SE-ResNet, ResNetV2, RegNet or a relative of theirs"


def blocks_of(stage: nn.Module) -> list[nn.Module]:
    """The residual blocks that a stage runs one after another; empty if it is no such stage.

    timm calls what stands on a block's shortcut ``downsample``, whether there is something or not,
    and so does torchvision. That is how blocks are known.
    """
    inner = getattr(stage, "blocks", None)
    alone = isinstance(inner, nn.Sequential) and len(list(stage.children())) == 1  # ResNetV2
    blocks = list((inner if alone else stage).children())
    return blocks if all(hasattr(block, "downsample") for block in blocks) else []


class ResidualStages:
    """An encoder cut into a stem, stages of residual blocks, and the pyramid that it makes of them.

    It holds no weights, and looks its modules up when it runs them.

    Args:
        encoder: the backbone is timm's ``features_only`` (or torchvision's equal) of a residual network.
        what: the architecture, for messages.

    Attributes:
        sizes: number of blocks of each stage.
        channels: of what each stage returns.
        strides: of what each stage returns.
        levels: for each feature of the backbone's pyramid the stage that it is the end of; ``None``
            for features of the stem.

    Raises:
        UserError: the backbone is not of a residual family.
    """

    def __init__(self, encoder: Encoder, what: str) -> None:
        self.encoder = encoder
        backbone = encoder.backbone
        self.stem, self.names = _cut(backbone, encoder.backbone_pyramid.name, what)
        ends = [name for name in backbone if name in backbone.return_layers]
        self._features = [ends[i] for i in encoder.kept]
        self.levels = [self.names.index(name) if name in self.names else None for name in self._features]
        self.sizes = [len(self.blocks(i)) for i in range(self.count)]
        with torch.no_grad():
            outputs, _ = dry_run(_Ends(self), encoder.example_shape)
        self.channels = [output.shape[1] for output in outputs]
        self.strides = [round(encoder.example_shape[-1] / output.shape[-1]) for output in outputs]

    @property
    def count(self) -> int:
        """Number of stages."""
        return len(self.names)

    def blocks(self, i: int) -> list[nn.Module]:
        """Residual blocks of stage ``i``."""
        return blocks_of(self.encoder.backbone[self.names[i]])

    def start(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What the first stage reads, and those features of the pyramid that the stem makes.

        Args:
            images: ``[B, C, H, W]``.
        """
        backbone, early = self.encoder.backbone, []
        value = self.encoder.prepare(images)
        for name in self.stem:
            value = backbone[name](value)
            if name in self._features:
                early.append(value)
        return value, early

    def run(self, i: int, value: Tensor) -> list[Tensor]:
        """Outputs of all blocks of stage ``i`` on what the stage before it returned."""
        outputs: list[Tensor] = []
        for block in self.blocks(i):
            value = block(value)
            outputs.append(value)
        return outputs

    def pyramid(self, early: Sequence[Tensor], stages: Sequence[Tensor], size: tuple[int, int]) -> list[Tensor]:
        """The features that task parts read, as ``encoder(images)`` returns them, neck included.

        Args:
            early: features of the stem.
            stages: for each stage what stands for its output.
            size: height and width of the images, which features of padded images are cropped to.
        """
        stem = iter(early)
        features = [next(stem) if level is None else stages[level] for level in self.levels]
        return self.encoder.finish(features, size)


def only_stages(backbone: nn.Module, stages: Sequence[int], what: str) -> nn.Module:
    """A residual backbone that returns the ends of some stages, without what comes after the last of them.

    The given one stays as it is; the two have their weights in common. An encoder keeps all these features,
    however fine.

    Args:
        backbone: timm's ``features_only`` of a residual network.
        stages: their numbers, from 1.
        what: the architecture, for messages.

    Raises:
        UserError: the backbone is not of a residual family, or has no such stage.
    """
    stem, names = _cut(backbone, called(backbone), what)
    if not stages or list(stages) != sorted(set(stages)) or not 1 <= stages[0] <= stages[-1] <= len(names):
        raise UserError(f"{what} has stages={list(stages)}: give some of 1 to {len(names)}, in order")
    short = copy.copy(backbone)
    short._modules = {name: backbone[name] for name in [*stem, *names[: stages[-1]]]}
    short.return_layers = {names[stage - 1]: str(i) for i, stage in enumerate(stages)}
    info = getattr(backbone, "feature_info", None)
    if hasattr(info, "from_other"):
        every = [feature["module"].replace(".", "_") for feature in info.info]
        short.feature_info = info.from_other(tuple(every.index(name) for name in short.return_layers))
    short.asked_indices = tuple(stages)
    return short


def _cut(backbone: nn.Module, name: str, what: str) -> tuple[list[str], list[str]]:
    """Names of the backbone's modules before its stages, and of its stages.

    Raises:
        UserError: there is something else than a stem and stages of residual blocks.
    """
    reason = f"{what} reaches inside the stages of a residual network, and {name}"
    if not isinstance(backbone, nn.ModuleDict) or not hasattr(backbone, "return_layers"):
        raise UserError(f"{reason} does not run one stage after another: choose a {_FAMILIES}")
    children = list(backbone)
    stages = [child for child in children if blocks_of(backbone[child])]
    stem = children[: len(children) - len(stages)]
    if not stages or children[len(stem) :] != stages:
        raise UserError(f"{reason} has stages of other blocks: choose a {_FAMILIES}")
    return stem, stages


class _Ends(nn.Module):
    """Outputs of all stages as a module, for a dry run."""

    def __init__(self, stages: ResidualStages) -> None:
        super().__init__()
        self.encoder, self.stages = stages.encoder, stages

    def forward(self, images: Tensor) -> list[Tensor]:
        value, _ = self.stages.start(images)
        ends: list[Tensor] = []
        for i in range(self.stages.count):
            value = self.stages.run(i, value)[-1]
            ends.append(value)
        return ends
