"""Contrastive pretraining of a backbone on images without labels, and loading of backbones.

The names below are imported when first used: ``import pretrain`` itself does not need torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pretrain.checkpoints import CheckpointError, inspect_checkpoint, load_backbone, save_backbone

__all__ = ["CheckpointError", "inspect_checkpoint", "load_backbone", "save_backbone"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("pretrain.checkpoints"), name)
    raise AttributeError(f"module 'pretrain' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
