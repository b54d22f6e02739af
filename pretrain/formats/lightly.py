"""The examples of lightly: the children of a torchvision ResNet in a ``Sequential``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pretrain.formats.base import FORMATS, CheckpointError, Encoder, Loaded, bare
from pretrain.formats.layout import Layout

NUMBERS = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
"""Number in the ``Sequential``: name in the ResNet (2 and 3 are activation and pooling, without tensors)."""


@FORMATS.register("lightly Sequential")
class LightlySequential(Layout):
    """``backbone.0`` to ``backbone.7``, flat or in a file of Lightning."""

    rank = -10  # before the formats of Lightning, whose prefix would be the same
    containers = ("", "state_dict")
    prefixes = ("backbone.",)
    signs = tuple(f"backbone.{number}." for number in NUMBERS)
    roles = {
        "momentum encoder": ("backbone_momentum.", "key_backbone.", "student_backbone."),
        "momentum head": ("projection_head_momentum.", "key_projection_head."),
        "projection head": ("projection_head", "prototypes"),
        "predictor": ("prediction_head",),
        "queue": ("criterion.", "queue", "memory_bank"),
    }

    def finish(self, encoder: Encoder, loaded: Loaded, state: Mapping[str, Any]) -> Encoder:
        """Numbers become names."""
        names = {}
        for key in encoder.state:
            number, _, rest = key.partition(".")
            names[key] = f"{NUMBERS.get(number, number)}.{bare(rest)}"
        if len(set(names.values())) != len(names):
            raise CheckpointError(f"{loaded.path} numbers two layers alike")
        return replace(encoder, state={names[key]: value for key, value in encoder.state.items()},
                       names={names[key]: encoder.name(key) for key in encoder.state})
