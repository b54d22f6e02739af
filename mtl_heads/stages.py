"""An encoder cut into its stages, for architectures that do something between them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from timm.models._features import FeatureDictNet, FeatureGetterNet
from timm.models.efficientnet import EfficientNetFeatures
from timm.models.hrnet import HighResolutionNetFeatures
from timm.models.mobilenetv3 import MobileNetV3Features
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from harness.errors import UserError
from mtl_heads.dry_run import dry_run
from mtl_heads.encoder import FINEST_STRIDE

if TYPE_CHECKING:
    from mtl_heads.encoder import Encoder

State = list[Tensor]
"""What one stage hands to the next: maps ``[B, C, h, w]``.

One map for most networks, the branches for HRNet. A plain transformer has its patches as the first
map and its class and register tokens, if any, as a second one of height 1; the last stage returns the
patches alone.
"""


def stages_of(encoder: Encoder) -> Stages:
    """Cut an encoder at the ends of its features.

    A network without parallel branches has a stage for each feature that its backbone gives, also for
    those that are too fine for the encoder's pyramid; a stem belongs to the first stage. HRNet has four,
    one for each number of branches (its features are all made of what the last one returns).

    Raises:
        UserError: the backbone cannot be cut; the message says why.
    """
    backbone, name = encoder.backbone, encoder.backbone_pyramid.name
    if isinstance(backbone, FeatureDictNet):
        return _Chain(encoder, *_listed(backbone, encoder.backbone_strides))
    if isinstance(backbone, EfficientNetFeatures | MobileNetV3Features):
        if backbone.feature_hooks is not None:
            raise UserError(
                f"{name} reads its features inside its blocks (feature_location), so it cannot be cut into stages: "
                "leave feature_location out"
            )
        return _Chain(encoder, *_blocks(backbone))
    if isinstance(backbone, HighResolutionNetFeatures):
        return _HighResolution(encoder)
    if isinstance(backbone, FeatureGetterNet) and _is_plain_transformer(backbone.model):
        return _Transformer(encoder)
    kind = type(backbone.model if isinstance(backbone, FeatureGetterNet) else backbone).__name__
    raise UserError(
        f"{name} cannot be cut into stages: how a {kind} passes features from one to the next is not known; "
        "choose a residual network, HRNet, ConvNeXt, EfficientNet, MobileNet, Swin or ViT, or another architecture"
    )


class Stages:
    """The stages of an encoder; it holds no weights, and looks its modules up when it runs them.

    Running all stages one after another and taking their :meth:`pyramid` is the same as calling the
    encoder.

    Args:
        encoder: what is cut.
        names: of each stage, its modules' names in ``encoder.backbone``, in order of execution.

    Attributes:
        channels: of each stage, the channels of the maps that it returns.
    """

    def __init__(self, encoder: Encoder, names: list[list[str]]) -> None:
        self.encoder = encoder
        self._names = names
        self.channels: list[list[int]] = []
        self._probe()

    def of_copy(self, encoder: Encoder) -> Stages:
        """The same cut of a copy of the encoder."""
        other = copy.copy(self)
        other.encoder = encoder
        return other

    @property
    def count(self) -> int:
        """Number of stages."""
        return len(self._names)

    @property
    def modules(self) -> list[list[nn.Module]]:
        """The modules of each stage, in order of execution."""
        return [[self._module(name) for name in names] for names in self._names]

    def parameters(self, i: int) -> list[nn.Parameter]:
        """All parameters of stage ``i``, also those that no module of its own holds."""
        return [value for module in self.modules[i] for value in module.parameters()]

    def start(self, images: Tensor) -> State:
        """What the first stage reads: images ``[B, C, H, W]``, padded where the backbone needs it."""
        return [self.encoder.prepare(images)]

    def run(self, i: int, state: State) -> State:
        """Stage ``i`` on what the stage before it returned; ``state`` itself stays as it is."""
        raise NotImplementedError

    def pyramid(self, states: list[State], size: tuple[int, int]) -> list[Tensor]:
        """The features that ``encoder(images)`` returns, neck included.

        Args:
            states: what each stage returned.
            size: height and width of the images, which features of padded images are cropped to.
        """
        return self.encoder.finish(self._features(states), size)

    def __call__(self, images: Tensor) -> list[State]:
        """All stages: what each of them returns."""
        states: list[State] = []
        state = self.start(images)
        for i in range(self.count):
            state = self.run(i, state)
            states.append(state)
        return states

    def keep(self, stages: Iterable[int]) -> None:
        """Delete the weights of all other stages: another encoder runs them.

        The encoder can then no longer be called as a whole.
        """
        kept = {name for i in stages for name in self._names[i]}
        for name in (name for names in self._names for name in names if name not in kept):
            parent, _, child = name.rpartition(".")
            setattr(self.encoder.backbone.get_submodule(parent), child, nn.Identity())

    def _module(self, name: str) -> nn.Module:
        module: Any = self.encoder.backbone
        for part in name.split("."):
            module = module[part] if isinstance(module, nn.ModuleDict) else getattr(module, part)
        return module

    def _features(self, states: list[State]) -> list[Tensor]:
        """The features of ``encoder.backbone_pyramid``."""
        raise NotImplementedError

    def _probe(self) -> None:
        """Run all stages without weights, to see what they return.

        Raises:
            UserError: something that is not a map.
        """
        name = self.encoder.backbone_pyramid.name
        try:
            with torch.no_grad():
                states, _ = dry_run(_All(self), self.encoder.example_shape)
        except (RuntimeError, TypeError, ValueError, AttributeError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise UserError(f"{name} cannot be cut into stages ({reason}): choose another backbone") from error
        if any(not isinstance(maps, Tensor) or maps.dim() != 4 for state in states for maps in state):
            raise UserError(f"{name} passes no feature maps between its stages: choose another backbone")
        self.channels = [[maps.shape[1] for maps in state] for state in states]


class _All(nn.Module):
    """Stages as a module, for a dry run."""

    def __init__(self, stages: Stages) -> None:
        super().__init__()
        self.encoder, self.stages = stages.encoder, stages

    def forward(self, images: Tensor) -> list[State]:
        return self.stages(images)


class _Chain(Stages):
    """Modules that run one after another.

    Args:
        encoder: what is cut.
        names: of all modules.
        ends: for each feature of the backbone, how many modules have run when it is there.
        stem: the first feature is a stem's.
    """

    def __init__(self, encoder: Encoder, names: list[str], ends: list[int], stem: bool) -> None:
        # A feature of the stem that the pyramid has must be some stage's output.
        cuts = ends[1:] if stem and 0 not in encoder.kept else ends
        self._read = [cuts.index(ends[i]) for i in encoder.kept]
        super().__init__(encoder, [names[a:b] for a, b in zip([0, *cuts], cuts, strict=False)])

    def run(self, i: int, state: State) -> State:
        channels_last = self.encoder.channels_last and i > 0
        maps = [value.permute(0, 2, 3, 1) for value in state] if channels_last else state
        value: Any = tuple(maps) if len(maps) > 1 else maps[0]  # dual path networks have two
        for name in self._names[i]:
            value = self._module(name)(value)
        result = list(value) if isinstance(value, list | tuple) else [value]
        return [maps.permute(0, 3, 1, 2) for maps in result] if self.encoder.channels_last else result

    def _features(self, states: list[State]) -> list[Tensor]:
        concatenated = getattr(self.encoder.backbone, "concat", False)
        read = [states[i] for i in self._read]
        return [torch.cat(maps, 1) if concatenated and len(maps) > 1 else maps[0] for maps in read]


def _listed(backbone: FeatureDictNet, strides: Sequence[int]) -> tuple[list[str], list[int], bool]:
    """Modules, ends and stem of a network whose modules are listed.

    A stem is fine, and ends in another kind of module than the stage after it (a convolution, a norm or an
    activation; no block).
    """
    names = list(backbone)
    ends = [i + 1 for i, name in enumerate(names) if name in backbone.return_layers]
    kinds = [type(backbone[names[end - 1]]) for end in ends[:2]]
    return names, ends, len(ends) > 1 and strides[0] < FINEST_STRIDE and kinds[0] is not kinds[1]


def _blocks(backbone: nn.Module) -> tuple[list[str], list[int], bool]:
    """Modules, ends and stem of a network of numbered blocks."""
    stem = [name for name in ("conv_stem", "bn1", "act1") if hasattr(backbone, name)]
    names = [*stem, *(f"blocks.{i}" for i in range(len(backbone.blocks)))]
    ends = [len(stem) + stage for stage in sorted(backbone._stage_out_idx)]
    return names, ends, len(ends) > 1 and ends[0] == len(stem)


class _HighResolution(Stages):
    """HRNet: four stages of one to four branches (Wang et al., "Deep high-resolution representation learning", 2020).

    A stage begins with the transition that makes its branches. What classification adds to the
    branches (``feature_location="incre"``) belongs to the features, and its weights to the last stage.
    """

    def __init__(self, encoder: Encoder) -> None:
        backbone = encoder.backbone
        branches = sorted(i - 1 for i in backbone._out_idx)  # -1: the stem
        self._branches = [branches[i] for i in encoder.kept]
        if self._branches[0] < 0:
            raise UserError(
                f"{encoder.backbone_pyramid.name} cannot be cut into stages with the feature of its stem: leave 0 out "
                "of out_indices"
            )
        names = [
            ["conv1", "bn1", "act1", "conv2", "bn2", "act2", "layer1"],
            ["transition1", "stage2"],
            ["transition2", "stage3"],
            ["transition3", "stage4"],
        ]
        if backbone.incre_modules is not None:
            names[3].append("incre_modules")
        super().__init__(encoder, names)

    def run(self, i: int, state: State) -> State:
        if i == 0:
            value = state[0]
            for name in self._names[0]:
                value = self._module(name)(value)
            return [value]
        transitions, stage = (self._module(name) for name in self._names[i][:2])
        # Branches that are new come from the coarsest one there was, as do those of other width.
        branches = [
            transition(state[-1]) if i == 1 or not isinstance(transition, nn.Identity) else state[branch]
            for branch, transition in enumerate(transitions)
        ]
        return stage(branches)

    def _features(self, states: list[State]) -> list[Tensor]:
        modules = self.encoder.backbone.incre_modules
        last = states[-1]
        return [modules[i](last[i]) if modules is not None else last[i] for i in self._branches]


def _is_plain_transformer(model: nn.Module) -> bool:
    known = VisionTransformer.forward_intermediates
    return isinstance(model, VisionTransformer) and type(model).forward_intermediates is known


class _Transformer(Stages):
    """Plain vision transformer: a stage ends with each block that a feature is read from."""

    #: Parameters that the model itself holds, and the first stage uses.
    _OWN = ("cls_token", "dist_token", "reg_token", "pos_embed")

    def __init__(self, encoder: Encoder) -> None:
        backbone = encoder.backbone
        name = encoder.backbone_pyramid.name
        if backbone.norm:
            raise UserError(
                f"{name} normalises its features apart from what its blocks hand on, so it cannot be cut into stages: "
                "leave norm out"
            )
        ends = [int(block.removeprefix("blocks.")) + 1 for block in backbone.feature_info.module_name()]
        names = [[f"model.blocks.{j}" for j in range(a, b)] for a, b in zip([0, *ends], ends, strict=False)]
        self._stem = ["model.patch_embed", "model.pos_drop", "model.patch_drop", "model.norm_pre"]
        names[0] = [*self._stem, *names[0]]
        super().__init__(encoder, names)

    @property
    def _model(self) -> VisionTransformer:
        return self.encoder.backbone.model

    def parameters(self, i: int) -> list[nn.Parameter]:
        own = [getattr(self._model, name, None) for name in self._OWN if i == 0]
        return [*super().parameters(i), *(value for value in own if value is not None)]

    def keep(self, stages: Iterable[int]) -> None:
        stages = list(stages)
        super().keep(stages)
        if 0 not in stages:
            for name in self._OWN:
                if hasattr(self._model, name):
                    setattr(self._model, name, None)

    def run(self, i: int, state: State) -> State:
        model, blocks = self._model, self._names[i]
        if i == 0:
            images, blocks = state[0], blocks[len(self._stem):]
            grid = model.patch_embed.dynamic_feat_size(tuple(images.shape[-2:]))
            tokens = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(images))))
        else:
            grid = tuple(state[0].shape[-2:])
            tokens = torch.cat([maps.flatten(2) for maps in reversed(state)], 2).transpose(1, 2)
        for name in blocks:
            tokens = self._module(name)(tokens)
        maps = tokens.transpose(1, 2)
        first = model.num_prefix_tokens
        patches = maps[..., first:].unflatten(2, grid)
        if not first or i == self.count - 1:  # nobody reads the other tokens of the last stage
            return [patches]
        return [patches, maps[..., :first].unsqueeze(2)]

    def _features(self, states: list[State]) -> list[Tensor]:
        return [states[i][0].contiguous() for i in self.encoder.kept]
