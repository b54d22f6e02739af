"""Our own training state: ``last.pt`` or ``best.pt`` of a pretraining run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from pretrain.formats.base import FORMATS, Encoder, Format, Loaded, Part, count, take_prefix

PREFIX = "backbone."
_ROLES = {"momentum encoder": "key", "queue": "queues"}
_NO_TRAINING = {"format", "query", "backbone", "backbone_options", "pretrained_cfg", *_ROLES.values()}


@FORMATS.register("tasklift run")
class TrainingState(Format):
    """The query encoder's backbone in the state of a run."""

    def recognises(self, loaded: Loaded) -> bool:
        """By its mark."""
        return str(loaded.content.get("format", "")).startswith("tasklift-pretrain/")

    def encoder(self, loaded: Loaded) -> Encoder:
        """The keys of ``query`` below the prefix (its head is left)."""
        found = take_prefix(loaded.content["query"], PREFIX, {"projection head": ("head.",)})
        return replace(
            found,
            architecture=loaded.content.get("backbone"),
            options=loaded.content.get("backbone_options") or {},
            pretrained_cfg=loaded.content.get("pretrained_cfg") or {},
            parts=(*found.parts, *_parts(loaded.content)),
        )

    def training(self, loaded: Loaded) -> dict[str, Any]:
        """What is neither weights nor says what they are of."""
        return {key: value for key, value in loaded.content.items() if key not in _NO_TRAINING}


def _parts(content: Mapping[str, Any]) -> list[Part]:
    """The other tensors of a run, under the name of where they are."""
    parts = []
    for role, name in _ROLES.items():
        held = content.get(name)
        if isinstance(held, Mapping) and any(isinstance(value, Tensor) for value in held.values()):
            named = {f"{name}.{key}": value for key, value in held.items()}
            parts.append(Part(role, tuple(named), count(named, named)))
    return parts
