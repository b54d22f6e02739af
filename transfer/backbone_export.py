"""The fine-tuned backbone as a file that everything that takes backbones takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from pretrain.checkpoints import save_backbone


def write_backbone(transfer: Any, path: Path) -> None:
    """Write it as pretraining does, with its architecture, options and convention, where all tasks have one backbone.

    Args:
        transfer: the :class:`transfer.engine.Transfer` of the run.
        path: of the file.
    """
    backbone = getattr(transfer.model, "backbone", None)
    if backbone is None:
        return
    architecture, options = transfer.network.backbone, dict(transfer.config.model.common.backbone_options)
    mean, std = (tuple(value.flatten().tolist()) for value in (transfer.network.mean, transfer.network.std))
    height, width = transfer.train_split[0]["image"].shape[:2]
    state = whole_names(backbone, architecture, options)
    save_backbone(path, state, architecture, mean, std, (len(mean), height, width),
                  {"fine_tuned_on": transfer.config.data.name, "tasks": list(transfer.config.tasks)}, options)


def whole_names(backbone: nn.Module, architecture: str, options: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The state of a feature pyramid under the names that the whole network has for it.

    timm's pyramids call a module ``stages_0`` that the network calls ``stages.0``.

    Args:
        backbone: the pyramid.
        architecture: its timm name.
        options: of that timm model.
    """
    state = backbone.state_dict()
    if not timm.is_model(architecture):
        return state
    with torch.device("meta"):
        whole = timm.create_model(architecture, num_classes=0, **options).state_dict()
    names = {name.replace(".", "_"): name for name in whole}
    return {names.get(name.replace(".", "_"), name): value for name, value in state.items()}
