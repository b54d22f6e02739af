"""Our own training state: ``last.pt`` or ``best.pt`` of a pretraining run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pretrain.formats.base import FORMATS, Encoder, Format, Loaded, take_prefix

PREFIX = "backbone."
_ENCODERS = ("query", "key")


@FORMATS.register("tasklift run")
class TrainingState(Format):
    """The query encoder's backbone in the state of a run."""

    def recognises(self, loaded: Loaded) -> bool:
        """By its mark."""
        return str(loaded.content.get("format", "")).startswith("tasklift-pretrain/")

    def encoder(self, loaded: Loaded) -> Encoder:
        """The keys of ``query`` below the prefix (its head is left)."""
        return replace(
            take_prefix(loaded.content["query"], PREFIX, {"projection head": ("head.",)}),
            architecture=loaded.content.get("backbone"),
            options=loaded.content.get("backbone_options") or {},
            pretrained_cfg=loaded.content.get("pretrained_cfg") or {},
        )

    def training(self, loaded: Loaded) -> dict[str, Any]:
        """All but the query encoder."""
        return {key: value for key, value in loaded.content.items() if key != "query"}
