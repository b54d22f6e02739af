"""SegNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch.nn.functional as F
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from mtl_heads.blocks import PooledBatchNorm2d
from mtl_heads.networks.chain import he_initialise


class Encoded(NamedTuple):
    """What the encoder leaves, from its first block to its last.

    Args:
        before: ``[B, C_j, h, w]`` of each block, before pooling.
        pooled: ``[B, C_j, h/2, w/2]``; sides of odd sizes are rounded up.
        places: where in ``before`` each value of ``pooled`` stands, int64.
    """

    before: list[Tensor]
    pooled: list[Tensor]
    places: list[Tensor]


class SegNet(nn.Module):
    """VGG-16 and its mirror image, which puts what was pooled back to where it was (Badrinarayanan et al., 2017).

    An encoder of five blocks of 3x3 convolutions with batch norm and ReLU, each followed by 2x2 maximum
    pooling; a decoder of the same blocks in reverse, each preceded by unpooling. The output is as large
    as the image, for images of any size. As a pyramid it gives, by default, that output alone, at
    stride 1; ``out_indices`` 1 to 4 are the decoder's other blocks, at strides 2 to 16, and 5 is what
    the decoder starts from, at stride 32.

    As a whole network it has a linear layer on the mean of its output.

    Args:
        num_classes: outputs; 0 leaves the linear layer out.
        in_chans: channels of the images.
        channels: of each block.
        depths: convolutions of each block.
        drop_rate: share of the pooled features dropped in training.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        channels: Sequence[int] = (64, 128, 256, 512, 512),
        depths: Sequence[int] = (2, 2, 3, 3, 3),
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if len(channels) != len(depths) or not channels or min(*channels, *depths) < 1:
            raise ValueError(
                f"channels {tuple(channels)} and depths {tuple(depths)} are not of the same blocks"
            )
        self.channels = tuple(channels)
        outer = (channels[0], *channels[:-1])  # what each block of the decoder returns, first level first
        inputs = (in_chans, *channels[:-1])
        levels = list(zip(inputs, channels, depths, strict=True))
        self.encoder = nn.ModuleList(_block(before, *[wide] * deep) for before, wide, deep in levels)
        mirrored = [
            _block(wide, *[wide] * (deep - 1), last)
            for (_, wide, deep), last in zip(levels, outer, strict=True)
        ]
        self.decoder = nn.ModuleList(reversed(mirrored))
        self.feature_info = [
            {"num_chs": wide, "reduction": 2**level, "module": f"decoder.{len(channels) - 1 - level}"}
            for level, wide in enumerate(outer)
        ]
        self.feature_info.append(
            {
                "num_chs": channels[-1],
                "reduction": 2 ** len(channels),
                "module": f"encoder.{len(channels) - 1}",
            }
        )
        self.num_features = self.head_hidden_size = channels[0]
        self.head_drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes)
        he_initialise(self)

    def encode(self, images: Tensor) -> Encoded:
        """The blocks of the encoder on images ``[B, C, H, W]``."""
        found = Encoded([], [], [])
        features = images
        for block in self.encoder:
            before = block(features)
            features, places = pool(before)
            found.before.append(before)
            found.pooled.append(features)
            found.places.append(places)
        return found

    def decode(self, encoded: Encoded, blocks: int | None = None) -> list[Tensor]:
        """What each block of the decoder returns, coarse to fine; by default all blocks run."""
        decoded: list[Tensor] = []
        features = encoded.pooled[-1]
        levels = zip(self.decoder, encoded.places[::-1], encoded.before[::-1], strict=False)
        for block, places, before in list(levels)[:blocks]:
            features = block(unpool(features, places, before))
            decoded.append(features)
        return decoded

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = True,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """timm's interface to features by index; nothing finer than what is asked for is computed."""
        if output_fmt != "NCHW":
            raise ValueError("features of SegNet are NCHW")
        take, _ = feature_take_indices(len(self.feature_info), indices)
        blocks = len(self.encoder)
        encoded = self.encode(x)
        decoded = self.decode(encoded, blocks - min(take) if intermediates_only else None)
        fine_to_coarse: dict[int, Tensor] = {blocks: encoded.pooled[-1]}
        fine_to_coarse |= {blocks - 1 - i: features for i, features in enumerate(decoded)}
        chosen = [fine_to_coarse[i] for i in take]
        return chosen if intermediates_only else (decoded[-1], chosen)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove what the features of these indices do not need."""
        take, _ = feature_take_indices(len(self.feature_info), indices)
        self.decoder = self.decoder[: len(self.encoder) - min(take)]
        if prune_head:
            self.reset_classifier(0)
        return take

    def get_classifier(self) -> nn.Module:
        """The linear layer."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new linear layer; there is one way to pool, so ``global_pool`` has no effect."""
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward_features(self, images: Tensor) -> Tensor:
        """Output of the decoder, ``[B, C, H, W]`` for images of that size."""
        return self.decode(self.encode(images))[-1]

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """``[B, num_classes]``, or ``[B, C]`` with ``pre_logits``."""
        pooled = self.head_drop(features.mean((2, 3)))
        return pooled if pre_logits else self.head(pooled)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))


def pool(features: Tensor) -> tuple[Tensor, Tensor]:
    """Maxima of 2x2 cells and their places; sides of odd sizes are rounded up."""
    return F.max_pool2d(features, 2, ceil_mode=True, return_indices=True)


def unpool(features: Tensor, places: Tensor, like: Tensor) -> Tensor:
    """Zeros but for the features at their places, at the size of ``like``."""
    return F.max_unpool2d(features, places, 2, output_size=like.shape[-2:])


def _block(*channels: int) -> nn.Sequential:
    """3x3 convolutions from each number of channels to the next, with batch norm and ReLU."""
    layers: list[nn.Module] = []
    for inputs, outputs in zip(channels, channels[1:], strict=False):
        layers.append(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False))
        layers += [PooledBatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


default_cfgs = generate_default_cfgs(
    {
        name: {"input_size": (3, 224, 224), "first_conv": "encoder.0.0", "classifier": "head"}
        for name in ("segnet", "segnet_wide", "segnet_deep")
    }
)


def _build(name: str, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    features = {"feature_cls": "getter", "out_indices": (0,)}
    return build_model_with_cfg(SegNet, name, pretrained, feature_cfg=features, **options)


@register_model
def segnet(pretrained: bool = False, **options: Any) -> nn.Module:
    """SegNet of VGG-16's widths, 29.5 M parameters."""
    return _build("segnet", pretrained, options)


@register_model
def segnet_wide(pretrained: bool = False, **options: Any) -> nn.Module:
    """SegNet with 23/16 of the channels: more parameters than MTAN-SegNet with three tasks."""
    return _build("segnet_wide", pretrained, {"channels": (92, 184, 368, 736, 736), **options})


@register_model
def segnet_deep(pretrained: bool = False, **options: Any) -> nn.Module:
    """SegNet with twice the layers: more parameters than MTAN-SegNet with three tasks."""
    return _build("segnet_deep", pretrained, {"depths": (4, 4, 6, 6, 6), **options})
