"""Backbones by their timm name, with pooled features, for images of several sizes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from harness.errors import UserError, closest

# What lets a transformer take views of several sizes; each model takes those that it knows.
_ANY_SIZE = {"dynamic_img_size": True, "dynamic_img_pad": True, "strict_img_size": False}
_REFUSALS = (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)


def create_backbone(name: str, options: Mapping[str, Any] | None = None, sizes: Iterable[int] = ()) -> nn.Module:
    """A timm model without classifier, from random weights.

    Args:
        name: timm's name of the model.
        options: keyword arguments of that model; they win over ours.
        sizes: sides of the square views that it must take, in pixels.

    Returns:
        A model from ``[N, 3, H, W]`` to ``[N, C]``, in training mode.

    Raises:
        UserError: timm has no such model, or the model does not take the options or a size.
    """
    import timm

    if not timm.is_model(name):
        raise UserError(f"model.backbone: timm has no '{name}'{closest(name, timm.list_models())}")
    options = dict(options or {})
    try:
        backbone = _create(name, options)
    except _REFUSALS as error:
        raise UserError(f"model.backbone '{name}' with {options or 'its own options'}: {_reason(error)}: change "
                        "--model.backbone_options") from error
    for size in sizes:
        try_size(backbone, name, size, "change --crops.global_size and --crops.local_size (or --crops.local_crops 0), "
                 "or --model.backbone_options, for example {img_size: …}")
    return backbone


def _create(name: str, options: dict[str, Any]) -> nn.Module:
    import timm

    extra = {key: value for key, value in _ANY_SIZE.items() if key not in options}
    while True:
        try:
            return timm.create_model(name, num_classes=0, **extra, **options)
        except TypeError as error:  # "... unexpected keyword argument 'dynamic_img_size'"
            refused = next((key for key in extra if f"'{key}'" in str(error)), None)
            if refused is None:
                raise
            del extra[refused]


@torch.no_grad()
def try_size(backbone: nn.Module, name: str, size: int, cure: str) -> None:
    """Refuse a size of images that a backbone does not take; nothing of the backbone changes.

    Args:
        backbone: from :func:`create_backbone`.
        name: timm's name of it.
        size: side of square images, in pixels.
        cure: what the user can do about it.

    Raises:
        UserError: it does not take them, or does not give one vector for each.
    """
    backbone.eval()  # leaves batch statistics and random numbers alone
    try:
        device = next(backbone.parameters()).device
        shape = tuple(backbone(torch.zeros(2, 3, size, size, device=device)).shape)
    except _REFUSALS as error:
        raise UserError(f"model.backbone '{name}' does not take views of {size} pixels: {_reason(error)}: "
                        f"{cure}") from error
    finally:
        backbone.train()
    if len(shape) != 2:
        raise UserError(f"model.backbone '{name}' gives features {shape}, and one vector for each image is needed: "
                        "leave its global_pool as it is")


def unreached_parameters(module: nn.Module, images: Any) -> list[nn.Parameter]:
    """Parameters that no output of a module depends on, found with one small backward pass.

    Args:
        module: gives a tensor or several; its statistics and gradients are left alone.
        images: what it is called with.
    """
    training = module.training
    module.eval()  # leaves batch statistics and random numbers alone
    try:
        outputs = module(images)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        values = [value for value in module.parameters() if value.requires_grad]
        total = sum(output.float().sum() for output in outputs if output.requires_grad)
        gradients = torch.autograd.grad(total, values, allow_unused=True)
    finally:
        module.train(training)
    return [value for value, gradient in zip(values, gradients, strict=True) if gradient is None]


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:160].rstrip(" .") or type(error).__name__
