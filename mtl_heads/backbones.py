"""Backbones by their timm name."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from typing import Any

import timm
from torch import nn

import mtl_heads.networks  # noqa: F401  (the papers' small networks, by their names in timm's registry)
from harness.errors import UserError, closest

# Options that let a backbone take images of any size, and HRNet give its own branches and not the
# wider features of its classification blocks: (default of the families that have it, ours).
_DEFAULTS: dict[str, tuple[Any, Any]] = {
    "dynamic_img_size": (False, True),
    "dynamic_img_pad": (False, True),
    "strict_img_size": (True, False),
    "feature_location": ("incre", ""),
}
OUTPUT_STRIDES = (8, 16, 32)
_REFUSALS = (TypeError, ValueError, AssertionError, RuntimeError, KeyError, IndexError)


def create_backbone(
    name: str, output_stride: int | None = None, options: Mapping[str, Any] | None = None
) -> nn.Module:
    """A timm model that returns its pyramid of features.

    Args:
        name: timm's name of the model.
        output_stride: stride of the coarsest features, 8, 16 or 32, reached by dilation; ``None``
            leaves the model as it is. Whether it was reached is for the caller to see.
        options: further keyword arguments of ``timm.create_model``; they win over ours.

    Raises:
        UserError: timm does not know the name, or the model does not take the options.
    """
    return remember(_backbone(name, output_stride, options), name, options)


def remember(backbone: nn.Module, name: str, options: Mapping[str, Any] | None = None) -> nn.Module:
    """Note on a backbone how it was made, which an encoder that is given the module could not know.

    Args:
        backbone: the model; returned.
        name: timm's name of it.
        options: keyword arguments that it was created with.
    """
    backbone.timm_name = name
    backbone.asked_indices = (options or {}).get("out_indices")
    return backbone


def called(backbone: nn.Module) -> str:
    """What messages call a backbone."""
    name = getattr(backbone, "timm_name", None)
    return f"the given {type(backbone).__name__}" if name is None else f"backbone '{name}'"


def asked_for_features(backbone: nn.Module) -> bool:
    """Whether somebody chose the features that the backbone returns."""
    return getattr(backbone, "asked_indices", None) is not None


def _backbone(name: str, output_stride: int | None, options: Mapping[str, Any] | None) -> nn.Module:
    options = dict(options or {})
    if "output_stride" in options:
        output_stride = options.pop("output_stride") if output_stride is None else output_stride
    if not timm.is_model(name):
        raise UserError(f"timm has no backbone '{name}'{closest(name, timm.list_models())}")
    arguments = {"pretrained": False, **options, "features_only": True}
    defaults = any_size_options(name)
    try:
        if output_stride is not None:
            try:
                return _create(name, {**arguments, "output_stride": output_stride}, defaults)
            except _REFUSALS:  # it cannot be dilated; its own stride may be the wanted one
                pass
        return _create(name, arguments, defaults)
    except _REFUSALS as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        what, then = "its default options", "choose another backbone or output_stride"
        if options:
            what, then = options, "change backbone_options; {} leaves out those that were set for another backbone"
        raise UserError(f"timm cannot build backbone '{name}' with {what} ({reason}): {then}") from error


def _create(name: str, arguments: dict[str, Any], defaults: dict[str, Any]) -> nn.Module:
    """``timm.create_model`` with those of the defaults that the model takes."""
    defaults = {key: value for key, value in defaults.items() if key not in arguments}
    while True:
        try:
            return timm.create_model(name, **defaults, **arguments)
        except TypeError as error:
            refused = next((key for key in defaults if f"'{key}'" in str(error)), None)
            if refused is None:
                raise
            del defaults[refused]


def any_size_options(name: str) -> dict[str, Any]:
    """Which of our defaults the classes know that are in sight of timm's function for ``name``."""
    module = sys.modules[timm.model_entrypoint(name).__module__]
    found: dict[str, Any] = {}
    for one in vars(module).values():
        if isinstance(one, type) and issubclass(one, nn.Module):
            for base in one.__mro__:
                known = inspect.signature(base.__init__).parameters if "__init__" in vars(base) else {}
                for key, (theirs, ours) in _DEFAULTS.items():
                    if key in known and known[key].default == theirs:
                        found[key] = ours
    return found
