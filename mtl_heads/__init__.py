"""Multi-task networks: one file per architecture, on any timm backbone.

    from mtl_heads import build_model

    model = build_model("baseline", "resnet18", dense={"semseg": 21, "depth": 1}, image={"scene": 6})
    output = model(images)  # output.predictions["semseg"]: [B, 21, H, W]

Nothing here imports torch until a name is used, so that asking for ``--help`` stays quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mtl_heads.build import architectures, build_model
    from mtl_heads.model import MultiTaskModel
    from mtl_heads.output import Output
    from mtl_heads.registry import ARCHITECTURES, HEADS, NECKS
    from mtl_heads.vandenhende import load_vandenhende

_HOME = {
    "ARCHITECTURES": "registry",
    "HEADS": "registry",
    "NECKS": "registry",
    "MultiTaskModel": "model",
    "Output": "output",
    "architectures": "build",
    "build_model": "build",
    "load_vandenhende": "vandenhende",
}

__all__ = [
    "ARCHITECTURES",
    "HEADS",
    "NECKS",
    "MultiTaskModel",
    "Output",
    "architectures",
    "build_model",
    "load_vandenhende",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'mtl_heads' has no attribute '{name}'")
    return getattr(importlib.import_module(f"mtl_heads.{_HOME[name]}"), name)
