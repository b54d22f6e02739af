"""Formats that are told by the starts of their keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor

from pretrain.formats.base import IMAGENET, CheckpointError, Encoder, Format, Loaded, take_prefix, without_wrappers


class Layout(Format):
    """A format whose backbone is what a prefix selects in a state dict.

    All starts of keys are matched at the start of a key without the wrappers of data parallel or compile.

    Attributes:
        top: keys that the file's top level must have.
        containers: keys of the top level under which the state dict may be; ``""`` is the top level itself.
        prefixes: what the backbone's keys may start with; the first that any key has is taken.
        signs: starts of keys; each must be there.
        absent: starts of keys that must not be there.
        roles: {role: starts of keys} of what is no part of the backbone.
        convention: input convention of the weights.
    """

    top: ClassVar[tuple[str, ...]] = ()
    containers: ClassVar[tuple[str, ...]] = ("state_dict",)
    prefixes: ClassVar[tuple[str, ...]] = ("",)
    signs: ClassVar[tuple[str, ...]] = ()
    absent: ClassVar[tuple[str, ...]] = ()
    roles: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    convention: ClassVar[Mapping[str, Any]] = IMAGENET

    def recognises(self, loaded: Loaded) -> bool:
        """All signs are there and nothing that must not be."""
        state = self._state(loaded)
        if state is None or any(key not in loaded.content for key in self.top):
            return False
        keys = self._keys(state)
        return (all(_has(keys, sign) for sign in self.signs) and not any(_has(keys, sign) for sign in self.absent)
                and any(_has(keys, prefix) for prefix in self.prefixes))

    def encoder(self, loaded: Loaded) -> Encoder:
        """What the prefix selects."""
        state = self._state(loaded)
        if state is None:
            raise CheckpointError(f"{loaded.path} has no state dict under {' or '.join(self.containers)}")
        keys = self._keys(state)
        prefix = next((prefix for prefix in self.prefixes if _has(keys, prefix)), self.prefixes[0])
        arch = loaded.content.get("arch")
        roles = {role: tuple(start for start in starts if start != prefix) for role, starts in self.roles.items()}
        encoder = take_prefix(state, prefix, roles)
        return self.finish(replace(encoder, hint=arch if isinstance(arch, str) else None,
                                   pretrained_cfg=dict(self.convention)), loaded, state)

    def finish(self, encoder: Encoder, loaded: Loaded, state: Mapping[str, Any]) -> Encoder:
        """The encoder with what is peculiar to the format.

        Args:
            encoder: what the prefix selects.
            loaded: the file.
            state: its state dict.
        """
        return encoder

    def likeness(self, loaded: Loaded) -> tuple[float, str]:
        """The share of signs that are there, and the first that is not."""
        state = self._state(loaded)
        keys = self._keys(state or {})
        wanted = [*((key, key in loaded.content) for key in self.top),
                  *((sign, _has(keys, sign)) for sign in (*self.signs, *filter(None, self.prefixes[:1])))]
        lacking = [sign for sign, there in wanted if not there]
        return (1 - len(lacking) / len(wanted), f"keys that start with {lacking[0]}") if lacking else (0.0, "")

    def training(self, loaded: Loaded) -> dict[str, Any]:
        """The top level without the state dict."""
        container = self._container(loaded)
        return {key: value for key, value in loaded.content.items() if container and key != container}

    def _keys(self, state: Mapping[str, Any]) -> set[str]:
        return {without_wrappers(key, prefix) for key in state for prefix in self.prefixes}

    def _container(self, loaded: Loaded) -> str | None:
        for container in self.containers:
            value = loaded.content if not container else loaded.content.get(container)
            if _named_tensors(value):
                return container
        return None

    def _state(self, loaded: Loaded) -> Mapping[str, Any] | None:
        container = self._container(loaded)
        return None if container is None else (loaded.content[container] if container else loaded.content)


def _named_tensors(value: Any) -> bool:
    return (isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
            and any(isinstance(entry, Tensor) for entry in value.values()))


def _has(keys: Iterable[str], start: str) -> bool:
    return any(key.startswith(start) for key in keys)
