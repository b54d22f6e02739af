"""Networks by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from mtl_heads.model import MultiTaskModel
from mtl_heads.registry import ARCHITECTURES, check_options
from mtl_heads.tasks import Tasks


def architectures() -> list[str]:
    """Names that :func:`build_model` knows, sorted."""
    return ARCHITECTURES.names()


def build_model(
    name: str,
    backbone: str | nn.Module,
    dense: Mapping[str, int],
    image: Mapping[str, int] | None = None,
    auxiliary: Mapping[str, int] | None = None,
    **options: Any,
) -> MultiTaskModel:
    """A multi-task network.

    Args:
        name: name of the architecture.
        backbone: timm name, or a module that returns a list of features (timm's ``features_only``).
        dense: output channels of the tasks that predict a map.
        image: output channels of the tasks that predict one vector per image.
        auxiliary: output channels of dense tasks that are trained only to help the others.
        options: options of the architecture; many share ``head``, ``neck``, ``output_stride`` and
            ``backbone_options``.

    Raises:
        UserError: a name is unknown, or the choices do not fit together.
    """
    architecture = ARCHITECTURES.get(name)
    check_options(f"architecture '{name}'", architecture, options)
    tasks = Tasks(dict(dense or {}), dict(image or {}), dict(auxiliary or {}))
    return architecture(backbone, tasks, **options)
