"""Which architecture a state dict is of, and which of its tensors fit."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from harness.errors import closest
from pretrain.formats.base import CheckpointError, Encoder
from pretrain.stems import CIFAR_RESNETS

_KNOWN = {
    "resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3), "resnext50_32x4d": (3, 4, 6, 3), "resnext101_32x8d": (3, 4, 23, 3),
    "resnext101_64x4d": (3, 4, 23, 3), "wide_resnet50_2": (3, 4, 6, 3), "wide_resnet101_2": (3, 4, 23, 3),
    "resnet26": (2, 2, 2, 2), "resnet10t": (1, 1, 1, 1), **CIFAR_RESNETS,
    "vit_tiny_patch16_224": (12, 192), "vit_small_patch16_224": (12, 384), "vit_small_patch8_224": (12, 384),
    "vit_base_patch16_224": (12, 768), "vit_base_patch8_224": (12, 768), "vit_base_patch32_224": (12, 768),
    "vit_large_patch16_224": (24, 1024),
    "convnext_tiny": (3, 3, 9, 3), "convnext_small": (3, 3, 27, 3), "convnext_base": (3, 3, 27, 3),
}
"""Architectures that a file without a name is compared with: blocks of each stage, or blocks and width.

They only save the building of networks that cannot fit.
"""

POSITIONS = "pos_embed"
_BLOCK = re.compile(r"(?:layer(\d+)|stages\.(\d+)\.blocks|blocks)\.(\d+)\.")
_REFUSED = {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "scriptable"}
"""Options of ``timm.create_model`` that would read other files; weights do not choose them."""


@dataclass(frozen=True)
class Fit:
    """How the tensors of a file fit a model.

    Attributes:
        matched: keys of the model that the file has.
        missing: keys that it lacks, or has in another shape.
        unexpected: keys of the file, as it has them, that the model does not take.
        resized: keys that were resized.
    """

    matched: list[str]
    missing: list[str]
    unexpected: list[str]
    resized: list[str]


def create(architecture: str, options: Mapping[str, Any]) -> nn.Module:
    """``timm.create_model`` with errors of ours.

    Raises:
        CheckpointError: timm has no such model, or it does not take the options.
    """
    if not timm.is_model(architecture):
        raise CheckpointError(
            f"timm has no model '{architecture}'{closest(architecture, timm.list_models())}: "
            "name one that it has"
        )
    try:
        return timm.create_model(architecture, **{"pretrained": False, **options})
    except (TypeError, RuntimeError, ValueError, AssertionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"timm cannot build '{architecture}' with these options: {reason}") from error


_outlines: dict[str, nn.Module] = {}


def outline(architecture: str, options: Mapping[str, Any]) -> nn.Module:
    """The model without memory for its tensors, where it can be built so; to be looked at and not changed."""
    name = f"{architecture} {sorted(options.items(), key=lambda entry: entry[0])}"
    if name not in _outlines:
        try:
            with torch.device("meta"):
                _outlines[name] = create(architecture, options)
        except (CheckpointError, NotImplementedError):
            return create(architecture, options)
    return _outlines[name]


def checked_options(options: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """Options of a timm model that come from a file.

    Raises:
        CheckpointError: one of them would make timm read another file.
    """
    refused = sorted(_REFUSED & set(options))
    if refused:
        raise CheckpointError(f"{where} asks timm for '{refused[0]}', which would load something else: it is no "
                              "backbone to trust; export it again")
    return dict(options)


def match(encoder: Encoder, wanted: Mapping[str, Tensor], resized: Mapping[str, Any] | None = None) -> Fit:
    """Compare a file's tensors with a model's.

    Args:
        encoder: of the file.
        wanted: state dict of the model.
        resized: keys that were resized to fit.
    """
    matched, missing = [], []
    for key, value in wanted.items():
        if key in encoder.state and encoder.state[key].shape == value.shape:
            matched.append(key)
        elif not key.endswith("num_batches_tracked"):  # older files lack it, and nothing depends on it
            missing.append(key)
    taken = set(matched)
    unexpected = [encoder.name(key) for key in encoder.state if key not in taken]
    return Fit(matched, missing, [*unexpected, *encoder.others], list(resized or {}))


def resized_positions(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Position embeddings of a vision transformer for the size of the model's images, where theirs is another.

    Args:
        state: with ``pos_embed`` of shape [1, prefix tokens + rows * columns, C], of a square grid.
        model: a timm model; its own ``pos_embed`` says the shape.

    Returns:
        ``{"pos_embed": …}``, or nothing where there is nothing to resize.
    """
    there, here = state.get(POSITIONS), getattr(model, POSITIONS, None)
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if there is None or here is None or grid is None or there.shape == here.shape:
        return {}
    prefix = here.shape[1] - grid[0] * grid[1]
    if there.ndim != 3 or there.shape[::2] != here.shape[::2] or _side(there.shape[1] - prefix) is None:
        return {}
    if there.numel() * there.element_size() > there.untyped_storage().nbytes():
        return {}  # a few numbers that claim to be as many as nobody could resize
    return {POSITIONS: resample_abs_pos_embed(there, list(grid), num_prefix_tokens=prefix)}


def _side(tokens: int) -> int | None:
    side = math.isqrt(max(tokens, 0))
    return side if side and side * side == tokens else None


def classifier_name(architecture: str) -> str:
    """Where an architecture has its classifier."""
    config = timm.get_pretrained_cfg(architecture)
    name = config.classifier if config is not None else None
    return name if isinstance(name, str) else (name or ("fc",))[0]


@cache
def _shapes(architecture: str) -> dict[str, torch.Size]:
    """Shapes of an architecture's tensors, without its classifier."""
    return {key: value.shape for key, value in outline(architecture, {"num_classes": 0}).state_dict().items()}


@dataclass(frozen=True)
class Guess:
    """The known architecture that a state dict is most like.

    Attributes:
        architecture: timm name.
        exact: all of its tensors are there, and nothing else but a classifier.
        options: of the model, as the tensors tell them: a transformer's size of images.
    """

    architecture: str
    exact: bool
    options: Mapping[str, Any]


def guess(encoder: Encoder) -> Guess | None:
    """Compare a state dict with the known architectures.

    Args:
        encoder: of the file; what it hints at is tried first.

    Returns:
        The one that fits, else the most similar if it is similar at all, else nothing.
    """
    best: tuple[float, str] = (0.0, "")
    for name in _candidates(encoder):
        wanted = _shapes(name)
        head = f"{classifier_name(name)}."
        there = {key for key in encoder.state if not key.startswith(head) or key in wanted}
        good = sum(key in wanted and _alike(key, encoder.state[key].shape, wanted[key]) for key in there)
        needed = {key for key in wanted if key in there or not key.endswith("num_batches_tracked")}
        share = good / max(1, len(there | needed))
        if share == 1:
            return Guess(name, True, _size(encoder.state, wanted))
        best = max(best, (share, name), key=lambda entry: entry[0])
    share, name = best
    return Guess(name, False, _size(encoder.state, _shapes(name))) if share > 0.5 else None


def _candidates(encoder: Encoder) -> Iterator[str]:
    if encoder.hint and timm.is_model(encoder.hint):
        yield encoder.hint
    shape = _stages(encoder.state)
    for name, stages in _KNOWN.items():
        if stages == shape and timm.is_model(name):
            yield name


def _stages(state: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Blocks of each stage as the keys number them; of a transformer blocks and width."""
    found = [match for match in map(_BLOCK.match, state) if match]
    stages = {match[1] or match[2] or "" for match in found}
    counts = tuple(len({match[3] for match in found if (match[1] or match[2] or "") == stage})
                   for stage in sorted(stages))
    token = state.get("cls_token")
    return (*counts, token.shape[-1]) if token is not None and token.ndim else counts


def _alike(key: str, there: torch.Size, here: torch.Size) -> bool:
    return there == here or (key == POSITIONS and len(there) == 3 and there[::2] == here[::2])


def _size(state: Mapping[str, Tensor], wanted: Mapping[str, torch.Size]) -> dict[str, Any]:
    """The image size that a transformer was trained at, where it is not the architecture's own."""
    if POSITIONS not in state or POSITIONS not in wanted or state[POSITIONS].shape == wanted[POSITIONS]:
        return {}
    kernel = state.get("patch_embed.proj.weight")
    side = _side(state[POSITIONS].shape[1] - 1) if state[POSITIONS].ndim == 3 else None
    return {"img_size": side * kernel.shape[-1]} if side and kernel is not None and kernel.ndim == 4 else {}


def mismatch(path: Path, format_name: str, architecture: str, encoder: Encoder, wanted: Mapping[str, Tensor],
             fit: Fit) -> str:
    """Why a file is refused: how much of it fits, the first thing that does not, and what to do."""
    first = fit.missing[0]
    found = guess(encoder) if encoder.architecture is None else None
    fits = encoder.architecture or (found.architecture if found and found.exact else None)
    similar = found.architecture if found and not found.exact and found.architecture != architecture else None
    left = [key for key in encoder.state if key not in wanted] if similar is None else []
    if first in encoder.state:
        there, here = list(encoder.state[first].shape), list(wanted[first].shape)
        detail = f"{encoder.name(first)} is {there} there and {here} in the model"
    else:
        detail = f"{first} is not in it"
        like = [key for key in left if encoder.state[key].shape == wanted[first].shape]
        near = difflib.get_close_matches(first, like, n=1, cutoff=0.8)
        detail += f" (it has {encoder.name(near[0])}, which nothing takes)" if near else ""
    if fits and fits != architecture:
        advice = f"set the architecture to {fits}"
    elif fits and encoder.options:
        own = ", ".join(f"{name}={value}" for name, value in encoder.options.items())
        advice = f"its network has {own}: ask for no other options"
    elif similar:
        advice = f"it is more like {similar}"
    elif len(fit.missing) <= 3 and fit.matched:
        advice = "the file was changed or is damaged; give another checkpoint"
    else:
        advice = "give another checkpoint"
    return (
        f"{path} (closest known format: '{format_name}') does not fit '{architecture}': it has "
        f"{len(fit.matched)} of {len(fit.matched) + len(fit.missing)} tensors of the backbone, and {detail}: {advice}"
    )
