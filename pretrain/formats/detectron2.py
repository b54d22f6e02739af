"""Detectron2's names of a ResNet."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pretrain.formats.base import FORMATS, CheckpointError, Encoder, Loaded
from pretrain.formats.layout import Layout

_OURS = ("architecture", "options", "pretrained_cfg", "matching_heuristics", "__author__")
"""What our export has beside the weights; nothing of it is a state of training."""
# timm's and torchvision's, Detectron2's
_STEM = (("conv1.", "stem.conv1."), ("bn1.", "stem.conv1.norm."))
_BLOCK = (("downsample.0.", "shortcut."), ("downsample.1.", "shortcut.norm."),
          *((f"conv{n}.", f"conv{n}.") for n in (1, 2, 3)), *((f"bn{n}.", f"conv{n}.norm.") for n in (1, 2, 3)))


def to_detectron2(key: str) -> str | None:
    """Detectron2's name of a tensor of a ResNet; none for what it has no place for."""
    stage = re.match(r"layer([1-4])\.(\d+)\.", key)
    head, pairs = (f"res{int(stage[1]) + 1}.{stage[2]}.", _BLOCK) if stage else ("", _STEM)
    rest = key[stage.end() if stage else 0 :]
    return next((head + there + rest.removeprefix(here) for here, there in pairs if rest.startswith(here)
                 and "." not in rest.removeprefix(here)), None)


def from_detectron2(key: str) -> str | None:
    """The inverse of :func:`to_detectron2`."""
    stage = re.match(r"res([2-5])\.(\d+)\.", key)
    head, pairs = (f"layer{int(stage[1]) - 1}.{stage[2]}.", _BLOCK) if stage else ("", _STEM)
    rest = key[stage.end() if stage else 0 :]
    return next((head + here + rest.removeprefix(there) for here, there in pairs if rest.startswith(there)
                 and "." not in rest.removeprefix(there)), None)


@FORMATS.register("Detectron2")
class Detectron2(Layout):
    """A ResNet for Detectron2, alone (``.pkl``) or below a detector."""

    containers = ("model",)
    prefixes = ("backbone.bottom_up.", "backbone.", "")
    rank = 30

    def recognises(self, loaded: Loaded) -> bool:
        """By the names of the stem and the first and last stage."""
        state = self._state(loaded)
        keys = self._keys(state) if state is not None else set()
        wanted = ("stem.conv1.weight", "res2.0.conv1.weight", "res5.0.conv1.weight")
        return any(keys >= {prefix + name for name in wanted} for prefix in self.prefixes)

    def finish(self, encoder: Encoder, loaded: Loaded, state: Mapping[str, Any]) -> Encoder:
        """Under timm's names, with what our export says of the architecture."""
        names = {key: from_detectron2(key) or key for key in encoder.state}
        if len(set(names.values())) != len(names):
            raise CheckpointError(f"{loaded.path} names two tensors alike")
        said = loaded.content
        options, convention = said.get("options"), said.get("pretrained_cfg")
        return replace(
            encoder, state={names[key]: value for key, value in encoder.state.items()},
            names={names[key]: encoder.name(key) for key in encoder.state},
            architecture=said["architecture"] if isinstance(said.get("architecture"), str) else None,
            options=dict(options) if isinstance(options, Mapping) else {},
            pretrained_cfg={key: tuple(value) for key, value in convention.items() if isinstance(value, list | tuple)}
            if isinstance(convention, Mapping) else encoder.pretrained_cfg,
        )

    def training(self, loaded: Loaded) -> dict[str, Any]:
        """The top level without the weights and what describes them."""
        return {key: value for key, value in super().training(loaded).items() if key not in _OURS}
