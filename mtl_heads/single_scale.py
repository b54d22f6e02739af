"""Decoder-focused networks that exchange features at one scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from harness.errors import UserError
from mtl_heads.blocks import PerTask, resize
from mtl_heads.decoder_focused import DecoderFocused
from mtl_heads.encoder import Pyramid
from mtl_heads.initial_prediction import InitialPrediction
from mtl_heads.refinement import refinement
from mtl_heads.tasks import Tasks

FEATURES = ("auto", "main", "all")
_FINE = 8  # stride of the dilated backbones that single-scale decoders are published with


class SingleScale(DecoderFocused):
    """Initial predictions, distillation between the task features, final heads: all at one scale.

    A subclass sets ``distillation``: a module called with the features of all tasks and the names of
    those to refine.

    Args:
        backbone: timm name, or a module that returns a list of features.
        tasks: the tasks, dense ones among them.
        channels: of the task features; a multiple of 4.
        features: what the initial predictions read: ``"main"``: one scale, the backbone's coarsest or
            the neck's finest; ``"all"``: all scales, concatenated at the finest one's size; ``"auto"``:
            main where its stride is 8 or finer (dilated backbones, necks), else all (HRNet).
        encoder: neck, its options, output stride and backbone options.

    Raises:
        UserError: the channels are not a multiple of 4, or ``features`` is unknown.
    """

    #: Set by the subclass.
    distillation: nn.Module

    def __init__(
        self, backbone: str | nn.Module, tasks: Tasks, *, channels: int, features: str, **encoder: Any
    ) -> None:
        super().__init__(backbone, tasks, **encoder)
        name = type(self).__name__
        if channels < 4 or channels % 4:
            raise UserError(f"{name} has channels={channels}: its bottlenecks need a multiple of 4")
        if features not in FEATURES:
            raise UserError(f"{name} has features='{features}': give one of {', '.join(FEATURES)}")
        pyramid = self.encoder.pyramid
        if features == "auto":
            features = "main" if pyramid.strides[pyramid.main] <= _FINE else "all"
        self.reads_all = features == "all"
        self.initial_prediction = InitialPrediction(
            self._inputs(pyramid), channels, self.map_tasks, Bottleneck
        )
        self.heads = PerTask(
            {
                task: nn.Sequential(*refinement(channels, channels, Bottleneck), nn.Conv2d(channels, number, 1))
                for task, number in tasks.dense.items()
            }
        )

    @classmethod
    def single_task_options(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """With ``deeplab`` where a dilated backbone's coarsest features alone are read, as published."""
        found = super().single_task_options(options)
        dilated = options.get("features", "auto") == "auto" and (options.get("output_stride") or _FINE + 1) <= _FINE
        one_scale = options.get("features") == "main" or dilated
        return {**found, "head": "deeplab"} if one_scale and found.get("neck", "none") == "none" else found

    @property
    def intermediate_strides(self) -> list[int]:
        pyramid = self.encoder.pyramid
        return [pyramid.strides[0 if self.reads_all else pyramid.main]]

    def decode_dense(
        self, features: list[Tensor], tasks: list[str], early: list[str]
    ) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
        targets = [task for task in tasks if task in self.task_set.dense]
        sources = self.map_tasks if targets else tasks
        found = self.initial_prediction(self._gather(features), sources)
        distilled = self.distillation(found, targets) if targets else {}
        final = {task: self.heads[task](distilled[task]) for task in targets}
        return final, [self.initial_prediction.predict(found, early)]

    def _inputs(self, pyramid: Pyramid) -> int:
        return sum(pyramid.channels) if self.reads_all else pyramid.channels[pyramid.main]

    def _gather(self, features: list[Tensor]) -> Tensor:
        if not self.reads_all:
            return features[self.encoder.pyramid.main]
        if len(features) == 1:
            return features[0]
        finest = tuple(features[0].shape[-2:])
        return torch.cat([resize(feature, finest) for feature in features], dim=1)
