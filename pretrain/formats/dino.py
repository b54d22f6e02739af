"""DINO (Caron et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from pretrain.formats.base import FORMATS, Encoder, Loaded, Part, count, is_state_dict
from pretrain.formats.layout import Layout


@FORMATS.register("DINO training")
class DINOTraining(Layout):
    """The teacher; its keys have ``module.`` in ResNets' files and not in transformers'."""

    top = ("student", "teacher")
    containers = ("teacher",)
    prefixes, signs = ("backbone.",), ("backbone.", "head.")
    roles = {"projection head": ("head.",)}

    def finish(self, encoder: Encoder, loaded: Loaded, state: Mapping[str, Any]) -> Encoder:
        """With the student among the parts."""
        student = loaded.content["student"]
        if not isinstance(student, Mapping):
            return encoder
        keys = tuple(key for key, value in student.items() if isinstance(value, Tensor))
        part = Part("student", tuple(f"student: {key}" for key in keys), count(student, keys))
        return replace(encoder, parts=(*encoder.parts, part))

    def training(self, loaded: Loaded) -> dict[str, Any]:
        """The student is a part of its own."""
        return {key: value for key, value in super().training(loaded).items() if key != "student"}


@FORMATS.register("DINO backbone")
class DINOBackbone(Layout):
    """A transformer alone, flat, without a classifier.

    Its names are timm's; what sets it apart is the input: ImageNet's mean and standard deviation, where timm's
    own weights of these architectures mostly take 0.5. A ResNet of DINO is like torchvision's but for ``fc``.
    """

    containers = ("",)
    signs = ("cls_token", "pos_embed", "patch_embed.proj.", "blocks.0.", "norm.")
    absent = ("head.", "fc_norm.")
    rank = 50

    def recognises(self, loaded: Loaded) -> bool:
        """Nothing but tensors, too."""
        return is_state_dict(loaded.content) and super().recognises(loaded)
