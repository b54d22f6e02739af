"""What a multi-task network costs, relative to one network per task."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from harness.errors import UserError
from mtl_heads import build_model
from mtl_heads.resources import Resources, single_task_resources
from mtl_heads.tasks import Tasks
from transfer.baselines import single_task_config
from transfer.config import TransferConfig


def relative_resources(
    config: TransferConfig, tasks: Tasks, backbone: str, own: Resources, image_size: int | tuple[int, int]
) -> dict[str, float] | None:
    """How much more it costs than the sum of the single-task networks that Δ_MTL is measured against.

    Args:
        config: of the multi-task run.
        tasks: of its network; those that its schedule added have no single-task network.
        backbone: timm name of its backbone.
        own: what its network costs.
        image_size: for which multiply-adds are counted.

    Returns:
        Percent, of ``parameters`` and ``macs``; None for a single-task run, and where there is no
        single-task network of this backbone, neck and head.
    """
    if config.model.name == "single_task":
        return None
    options = {
        **single_task_config(config, config.tasks[0]).model.options,
        "backbone_options": config.model.common.backbone_options or None,
    }

    tasks = dataclasses.replace(tasks, image={name: count for name, count in tasks.image.items()
                                              if name in config.tasks})

    def make(one: Tasks) -> Any:
        return build_model("single_task", backbone, one.dense, one.image, **options)

    try:
        with torch.random.fork_rng(devices=[]):
            singles = single_task_resources(make, tasks, image_size)
    except UserError:
        return None
    return dict(zip(("parameters", "macs"), own.change(singles), strict=True))
