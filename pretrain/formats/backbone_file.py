"""Our own export: a backbone alone, as safetensors, with what is needed to use it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pretrain.formats.base import FORMATS, CheckpointError, Encoder, Format, Loaded, take_prefix

MARK = "tasklift"
VERSION = "backbone-1"


def metadata_of(
    architecture: str,
    options: Mapping[str, Any],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    input_size: tuple[int, int, int],
    metadata: Mapping[str, Any],
) -> dict[str, str]:
    """The safetensors header of a backbone file; the inverse of what :class:`BackboneFile` reads."""
    convention = {"mean": list(mean), "std": list(std), "input_size": list(input_size)}
    return {
        "format": "pt",
        MARK: VERSION,
        "architecture": architecture,
        "options": json.dumps(dict(options)),
        "pretrained_cfg": json.dumps(convention),
        "metadata": json.dumps(dict(metadata), sort_keys=True),
    }


@FORMATS.register("tasklift backbone")
class BackboneFile(Format):
    """``backbone.safetensors`` of a pretraining run."""

    def recognises(self, loaded: Loaded) -> bool:
        """By its mark."""
        return loaded.metadata.get(MARK, "").startswith("backbone-")

    def encoder(self, loaded: Loaded) -> Encoder:
        """The whole file."""
        convention = _header(loaded, "pretrained_cfg")
        return replace(
            take_prefix(loaded.content, ""),
            architecture=loaded.metadata.get("architecture"),
            options=_header(loaded, "options"),
            pretrained_cfg={key: tuple(value) for key, value in convention.items()},
        )

    def training(self, loaded: Loaded) -> dict[str, Any]:
        """What was written with it."""
        return _header(loaded, "metadata")


def _header(loaded: Loaded, name: str) -> dict[str, Any]:
    try:
        value = json.loads(loaded.metadata.get(name, "{}"))
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise CheckpointError(f"{loaded.path} has a header whose '{name}' is no JSON object: it is damaged; fetch or "
                              "write it again")
    return value
