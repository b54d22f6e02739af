"""What every checkpoint format has, and the registry of formats."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from harness.errors import UserError
from harness.registry import Registry

FORMATS: Registry[type[Format]] = Registry("checkpoint format", "pretrain.formats")

_WRAPPERS = ("module.", "_orig_mod.")


class CheckpointError(UserError):
    """A checkpoint cannot be read, is in no known format, or does not fit the architecture."""


@dataclass(frozen=True)
class Loaded:
    """A file as it was read.

    Attributes:
        path: of the file.
        content: its top level.
        metadata: of a safetensors file; else empty.
    """

    path: Path
    content: Mapping[str, Any]
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Encoder:
    """The part of a checkpoint that is a backbone.

    Attributes:
        state: the backbone's state dict, prefix removed.
        prefix: what its keys start with in the file.
        others: keys of the file's state dict that are no part of the backbone.
        architecture: timm name, where the file says it.
        options: of that timm model, where the file says them.
        pretrained_cfg: input convention (``mean``, ``std``, ``input_size``), as far as it is known.
    """

    state: Mapping[str, Tensor]
    prefix: str = ""
    others: tuple[str, ...] = ()
    architecture: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    pretrained_cfg: Mapping[str, Any] = field(default_factory=dict)


class Format(ABC):
    """A layout of checkpoint files.

    Attributes:
        rank: formats are tried from the lowest to the highest; one that would also take the files of others
            has a high rank.
    """

    rank: int = 0

    @abstractmethod
    def recognises(self, loaded: Loaded) -> bool:
        """Whether a file has this layout."""

    @abstractmethod
    def encoder(self, loaded: Loaded) -> Encoder:
        """The backbone in a file of this layout."""


def wrapper_length(key: str) -> int:
    """Characters at the start of a key that wrappers (data parallel, compiled) have put there."""
    start = 0
    while (wrapper := next((w for w in _WRAPPERS if key.startswith(w, start)), None)) is not None:
        start += len(wrapper)
    return start


def take_prefix(state: Mapping[str, Any], prefix: str) -> Encoder:
    """The tensors whose key starts with a prefix, wrappers before and after it aside.

    Args:
        state: a state dict.
        prefix: matched at the start of a key, never elsewhere in it.

    Returns:
        An encoder; its ``prefix`` is what the first such key really starts with.
    """
    taken: dict[str, Tensor] = {}
    others: list[str] = []
    found = prefix
    for key, value in state.items():
        bare = key[wrapper_length(key) :]
        if not bare.startswith(prefix) or not isinstance(value, Tensor):
            others.append(key)
            continue
        name = bare[len(prefix) :]
        name = name[wrapper_length(name) :]
        if not taken:
            found = key[: len(key) - len(name)]
        taken[name] = value
    return Encoder(taken, found, tuple(others))


def is_state_dict(value: Any) -> bool:
    """Whether a value is a non-empty mapping of names to tensors."""
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(key, str) and isinstance(entry, Tensor) for key, entry in value.items())
    )
