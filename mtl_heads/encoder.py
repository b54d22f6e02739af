"""Backbone and neck: from images to the pyramid that all task parts read."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import UserError
from mtl_heads.backbones import OUTPUT_STRIDES, asked_for_features, called, create_backbone
from mtl_heads.dry_run import dry_run, input_channels
from mtl_heads.registry import NECKS, check_options

FINEST_STRIDE = 4  # finer features cost much and published decoders do not read them
_SIZES = (224, 256, 384, 128, 64, 32)
_MULTIPLES = (8, 16, 32, 64)  # of sides that networks need whose coarse features are not asked for


class Pyramid(NamedTuple):
    """Shape of a list of features, fine to coarse.

    Args:
        channels: of each feature.
        strides: input pixels per feature cell, of each feature.
        main: index of the feature that decoders of one scale read: the coarsest of a backbone, the
            finest of a neck that has brought the coarse ones' content there.
        name: what messages call it.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    main: int = -1
    name: str = "the backbone"

    def require_scales(self, what: str) -> None:
        """Refuse a pyramid that has fewer than two scales.

        Raises:
            UserError: all features have the same stride.
        """
        if len(set(self.strides)) < 2:
            raise UserError(
                f"{what} needs features of at least two strides, {self.name} gives "
                f"{len(self.strides)} of stride {self.strides[0]}: choose another head or backbone, or for a "
                "plain transformer neck 'simple_pyramid'"
            )


class Encoder(nn.Module):
    """A backbone with its neck.

    Features finer than ``finest_stride`` are dropped, unless ``out_indices`` was among the options that
    the backbone was created with by :func:`mtl_heads.backbones.create_backbone`; channels come first
    whatever the backbone's layout. A backbone that takes only multiples of some size (HRNet, Swin) gets its
    images padded with zeros, the mean colour, at the right and bottom, and its features cropped back.

    Args:
        backbone: timm name, or a module that returns a list of features (timm's ``features_only``).
        output_stride: stride of the coarsest features; ``None`` leaves the backbone as it is.
        neck: name of the neck.
        neck_options: options of the neck.
        backbone_options: keyword arguments of ``timm.create_model``; only with a name.
        finest_stride: stride of the finest features that are kept.

    Raises:
        UserError: backbone, stride, neck or options do not exist or do not fit together.
    """

    def __init__(
        self,
        backbone: str | nn.Module,
        *,
        output_stride: int | None = None,
        neck: str = "none",
        neck_options: Mapping[str, Any] | None = None,
        backbone_options: Mapping[str, Any] | None = None,
        finest_stride: int = FINEST_STRIDE,
    ) -> None:
        super().__init__()
        if output_stride is not None and output_stride not in OUTPUT_STRIDES:
            raise UserError(f"output_stride is {output_stride}: give one of {OUTPUT_STRIDES} or none")
        if isinstance(backbone, str):
            backbone = create_backbone(backbone, output_stride, backbone_options)
        elif not isinstance(backbone, nn.Module):
            raise UserError(f"backbone is a {type(backbone).__name__}: give a timm name or a module")
        elif backbone_options:
            raise UserError(f"backbone_options have no effect on {called(backbone)}: create it with them")
        self.backbone, name = backbone, called(backbone)

        self.image_size, features = _first_run(self.backbone, name)
        self.channels_last, channels = _layout(self.backbone, features)
        grids = [feature.shape[1:3] if self.channels_last else feature.shape[2:4] for feature in features]
        strides = [round(self.image_size[0] / grid[0]) for grid in grids]
        self.backbone_strides = tuple(strides)  # of all its features
        all_kept = asked_for_features(self.backbone) or max(strides) < finest_stride
        self.kept = [i for i, stride in enumerate(strides) if all_kept or stride >= finest_stride]
        self.backbone_pyramid = Pyramid(
            tuple(channels[i] for i in self.kept), tuple(strides[i] for i in self.kept), -1, name
        )
        if output_stride is not None and max(strides) != output_stride:
            raise UserError(
                f"{name} has output stride {max(strides)} and cannot be dilated to {output_stride}: "
                "leave output_stride out or choose another backbone"
            )
        self.multiple = _needed_multiple(self.backbone, strides, self.image_size, not features[0].is_meta)

        neck_class = NECKS.get(neck)
        check_options(f"neck '{neck}'", neck_class, neck_options or {})
        self.neck = neck_class(self.backbone_pyramid, **(neck_options or {}))
        self.pyramid: Pyramid = self.neck.pyramid

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features ``[B, C_i, H/s_i, W/s_i]``, fine to coarse, of images ``[B, C, H, W]``."""
        features = _as_list(self.backbone(self.prepare(images)))
        features = [features[i] for i in self.kept]
        if self.channels_last:
            features = [feature.permute(0, 3, 1, 2) for feature in features]
        return self.finish(features, tuple(images.shape[-2:]))

    def prepare(self, images: Tensor) -> Tensor:
        """Images ``[B, C, H, W]`` as the backbone takes them: padded at the right and bottom where it must be."""
        height, width = images.shape[-2:]
        if self.multiple is None and (height, width) != self.image_size:
            raise UserError(
                f"{self.backbone_pyramid.name} takes only images of "
                f"{self.image_size[0]}x{self.image_size[1]}, not {height}x{width}: "
                "resize them, or give backbone_options the img_size"
            )
        below, right = self._padding(height, width)
        return F.pad(images, (0, right, 0, below)) if below or right else images

    def finish(self, features: list[Tensor], size: tuple[int, int]) -> list[Tensor]:
        """Crop the backbone's features of images that were padded, and run the neck.

        Args:
            features: those of ``backbone_pyramid``, channels first.
            size: height and width of the images before :meth:`prepare`.
        """
        height, width = size
        if any(self._padding(height, width)):
            features = [
                feature[..., : -(-height // stride), : -(-width // stride)]
                for feature, stride in zip(features, self.backbone_pyramid.strides, strict=True)
            ]
        return self.neck.crop(self.neck(features), size)

    def _padding(self, height: int, width: int) -> tuple[int, int]:
        """Rows below and columns at the right that images of a size lack."""
        return (-height % self.multiple, -width % self.multiple) if self.multiple else (0, 0)

    @property
    def example_shape(self) -> tuple[int, int, int, int]:
        """Shape ``[1, C, H, W]`` of an image that the backbone certainly takes."""
        return (1, input_channels(self.backbone), *self.image_size)

    def copies(self, count: int) -> list[Encoder]:
        """This encoder and ``count - 1`` copies of it, for architectures with an encoder per task."""
        return [self, *(copy.deepcopy(self) for _ in range(count - 1))]


def _as_list(features: Any) -> list[Tensor]:
    return list(features.values()) if isinstance(features, Mapping) else list(features)


def _first_run(backbone: nn.Module, name: str) -> tuple[tuple[int, int], list[Tensor]]:
    """A size of images that the backbone takes, and its features of one such image."""
    sizes = (getattr(part, "img_size", None) for part in backbone.modules())
    declared = [tuple(size) for size in sizes if _is_pair(size)]
    channels = input_channels(backbone)
    reason = ""
    for size in [*declared[:1], *((side, side) for side in _SIZES)]:
        try:
            with torch.no_grad():
                output, _ = dry_run(backbone, (1, channels, *size))
        except Exception as error:  # whatever a backbone raises at a size that it does not take
            reason = reason or " ".join(f"{type(error).__name__}: {error}".split())
            continue
        maps = isinstance(output, list | tuple | Mapping) and len(output) > 0
        if not maps or any(not isinstance(f, Tensor) or f.dim() != 4 for f in _as_list(output)):
            raise UserError(f"{name} does not return a list of feature maps: make it with features_only=True")
        return size, _as_list(output)
    raise UserError(f"{name} runs on no size of image that was tried ({reason})")


def _is_pair(size: Any) -> bool:
    return isinstance(size, list | tuple) and len(size) == 2 and all(isinstance(s, int) for s in size)


def _layout(backbone: nn.Module, features: list[Tensor]) -> tuple[bool, list[int]]:
    """Whether channels come last, and the number of channels of each feature."""
    last = [feature.shape[3] for feature in features]
    first = [feature.shape[1] for feature in features]
    declared = getattr(backbone, "output_fmt", None)
    if declared is not None:
        return (True, last) if str(getattr(declared, "value", declared)) == "NHWC" else (False, first)
    info = getattr(backbone, "feature_info", None)
    if info is not None and hasattr(info, "channels") and list(info.channels()) == last != first:
        return True, last
    return False, first


def _needed_multiple(backbone: nn.Module, strides: list[int], size: tuple[int, int], really: bool) -> int | None:
    """The first of a few numbers that an image's sides must be multiples of; ``None``: one size only.

    Args:
        backbone: the model.
        strides: of its features.
        size: of images that it takes.
        really: whether it cannot run without values.
    """
    channels = input_channels(backbone)
    for multiple in dict.fromkeys((1, min(strides), max(strides), *_MULTIPLES, max(size))):
        height, width = (max(3, -(-side // multiple)) * multiple for side in (97, 131))
        try:
            with torch.no_grad():
                dry_run(backbone, (1, channels, height, width), really=really)
        except Exception:  # whatever a backbone raises at a size that it does not take
            continue
        return multiple
    return None
