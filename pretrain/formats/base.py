"""What every checkpoint format has, and the registry of formats."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from harness.errors import UserError
from harness.registry import Registry

FORMATS: Registry[type[Format]] = Registry("checkpoint format", "pretrain.formats")

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
"""Channel statistics that most published backbones were trained with, in [0, 1]."""

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
        kind: of file, in words.
    """

    path: Path
    content: Mapping[str, Any]
    metadata: Mapping[str, str] = field(default_factory=dict)
    kind: str = ""


@dataclass(frozen=True)
class Part:
    """Keys of a checkpoint that belong together.

    Attributes:
        role: what they are: ``"projection head"``, ``"momentum encoder"``, ``"queue"``, …
        keys: as the file has them.
        values: numbers in all their tensors together.
    """

    role: str
    keys: tuple[str, ...]
    values: int


@dataclass(frozen=True)
class Encoder:
    """The part of a checkpoint that is a backbone.

    Attributes:
        state: the backbone's state dict, prefix removed, under timm's names.
        prefix: what its keys start with in the file.
        others: keys of the file's state dict that are no part of the backbone.
        architecture: timm name, where the file says it.
        options: of that timm model (or of the one that fits), where the format or the file says them.
        pretrained_cfg: input convention (``mean``, ``std``, ``input_size``), as far as it is known.
        names: keys of ``state`` as the file has them, where that is not ``prefix`` + key.
        parts: what the others are.
        classifier: ``weight`` and ``bias`` of a classifier that the file keeps apart from the backbone.
        hint: what a file calls its architecture; perhaps a timm name, and perhaps wrong.
    """

    state: Mapping[str, Tensor]
    prefix: str = ""
    others: tuple[str, ...] = ()
    architecture: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    pretrained_cfg: Mapping[str, Any] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    classifier: Mapping[str, Tensor] = field(default_factory=dict)
    hint: str | None = None

    def name(self, key: str) -> str:
        """A key of ``state`` as the file has it."""
        return self.names.get(key, self.prefix + key)


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

    def likeness(self, loaded: Loaded) -> tuple[float, str]:
        """How much a file that nobody recognises is like this format, 0 to 1, and what it lacks."""
        return 0.0, ""

    def training(self, loaded: Loaded) -> dict[str, Any]:
        """What a file has beside its weights: optimizer, epoch, …"""
        return {}


def wrapper_length(key: str) -> int:
    """Characters at the start of a key that wrappers (data parallel, compiled) have put there."""
    start = 0
    while (wrapper := next((w for w in _WRAPPERS if key.startswith(w, start)), None)) is not None:
        start += len(wrapper)
    return start


def bare(key: str) -> str:
    """A key without what wrappers have put at its start."""
    return key[wrapper_length(key) :]


def without_wrappers(key: str, prefix: str) -> str:
    """A key without what wrappers have put at its start and right after a prefix."""
    plain = bare(key)
    return prefix + bare(plain[len(prefix) :]) if plain.startswith(prefix) else plain


def take_prefix(state: Mapping[str, Any], prefix: str, roles: Mapping[str, Iterable[str]] | None = None) -> Encoder:
    """The tensors whose key starts with a prefix, wrappers before and after it aside.

    Args:
        state: a state dict.
        prefix: matched at the start of a key, never elsewhere in it.
        roles: {role: starts of keys} of what is no part of the backbone, also below the prefix; matched at the
            start of keys without their wrappers. Keys that are of no role and not below the prefix are "other".

    Returns:
        An encoder; its ``prefix`` is what the first such key really starts with.

    Raises:
        CheckpointError: two keys are the same one but for wrappers.
    """
    starts = {role: tuple(value) for role, value in (roles or {}).items()}
    taken: dict[str, Tensor] = {}
    names: dict[str, str] = {}
    rest: dict[str, list[str]] = {}
    others: list[str] = []
    found = prefix
    for key, value in state.items():
        plain = without_wrappers(key, prefix)
        role = next((role for role, start in starts.items() if plain.startswith(start)), None)
        if role is not None or not plain.startswith(prefix) or not isinstance(value, Tensor):
            rest.setdefault(role or "other", []).append(key)
            others.append(key)
            continue
        name = plain[len(prefix) :]
        if name in taken:
            raise CheckpointError(f"the keys {names.get(name, found + name)} and {key} are the same tensor but for "
                                  "wrappers: the file is not a state dict of one network")
        if not taken:
            found = key[: len(key) - len(name)]
        taken[name] = value
        if key != found + name:
            names[name] = key
    parts = tuple(Part(role, tuple(keys), count(state, keys)) for role, keys in rest.items())
    return Encoder(taken, found, tuple(others), names=names, parts=parts)


def count(state: Mapping[str, Any], keys: Iterable[str]) -> int:
    """Numbers in the tensors of these keys together."""
    return sum(state[key].numel() for key in keys if isinstance(state[key], Tensor))


def is_state_dict(value: Any) -> bool:
    """Whether a value is a non-empty mapping of names to tensors."""
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(key, str) and isinstance(entry, Tensor) for key, entry in value.items())
    )
