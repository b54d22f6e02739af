"""From a configuration to a network with its starting weights."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from harness.errors import UserError
from mtl_heads import build_model
from mtl_heads.backbones import create_backbone, remember
from mtl_heads.dry_run import input_channels
from mtl_heads.encoder import Encoder, Pyramid
from mtl_heads.registry import HEADS
from transfer.config import TransferConfig
from transfer.tasks.base import Task

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass
class Network:
    """A network and what its inputs are.

    Attributes:
        model: the multi-task network.
        backbone: timm name.
        mean: of the channels, in [0, 1], that the backbone expects subtracted.
        std: of the channels, in [0, 1], that it expects divided by.
    """

    model: nn.Module
    backbone: str
    mean: torch.Tensor
    std: torch.Tensor

    def to(self, device: torch.device) -> Network:
        """Move everything to a device."""
        self.model.to(device)
        self.mean, self.std = self.mean.to(device), self.std.to(device)
        return self

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 ``[B, C, H, W]`` to what the backbone expects; grey images become as many channels as it has.

        Raises:
            UserError: images have other channels than the backbone.
        """
        if images.shape[1] not in (1, len(self.mean)):
            raise UserError(f"images have {images.shape[1]} channels and backbone '{self.backbone}' takes "
                            f"{len(self.mean)}: set --model.backbone_options.in_chans {images.shape[1]}")
        return (images.float().div_(255) - self.mean) / self.std


def build_network(config: TransferConfig, tasks: dict[str, Task]) -> Network:
    """Build it, and load the backbone's weights where the configuration names some.

    Args:
        config: of the run.
        tasks: all of them, by name: main ones, those that its schedule adds, auxiliary ones.

    Raises:
        UserError: unknown names, or weights that do not fit the backbone.
    """
    model, output_stride = config.model.common, config.model.options.get("output_stride")
    if model.weights:
        backbone, name = _pretrained(config, output_stride)
    else:
        name = model.backbone or "resnet18"
        backbone = create_backbone(name, output_stride, model.backbone_options)
    convention = getattr(backbone, "pretrained_cfg", None) or {}
    mean, std = (_of_channels(convention.get(key) or default, input_channels(backbone))
                 for key, default in zip(("mean", "std"), IMAGENET, strict=True))
    for task in config.auxiliary:
        if not tasks[task].dense:
            raise UserError(f"auxiliary task '{task}' has one label per image, and auxiliary tasks are dense: put it "
                            "in tasks")
    main = {name_: task for name_, task in tasks.items() if name_ not in config.auxiliary}
    network = build_model(
        config.model.name, backbone,
        dense={name_: task.channels for name_, task in main.items() if task.dense},
        image={name_: task.channels for name_, task in main.items() if not task.dense},
        auxiliary={task: tasks[task].channels for task in config.auxiliary},
        **config.model.options,
    )
    return Network(config.partition.build(network, seed=config.seed), name, mean, std)


def fits_head(config: TransferConfig, head: str) -> bool:
    """Whether a head can read what the configured backbone and neck give; some need several scales.

    Raises:
        UserError: the backbone or the neck cannot be made.
    """
    from pretrain import inspect_checkpoint

    model, options = config.model.common, config.model.options
    name = model.backbone or (inspect_checkpoint(model.weights).architecture if model.weights else "resnet18")
    if name is None:
        return True
    kind = HEADS.get(head)
    made = {"output_stride": options.get("output_stride"), "neck": options.get("neck") or "none",
            "neck_options": options.get("neck_options"), "backbone_options": model.backbone_options,
            "finest_stride": kind.finest_stride}
    pyramid = _pyramid(name, json.dumps(made, sort_keys=True))
    try:
        with torch.device("meta"):
            kind(pyramid, 1)
    except UserError:
        return False
    return True


@functools.lru_cache(maxsize=16)
def _pyramid(name: str, options: str) -> Pyramid:
    """What an encoder gives; its options are JSON. It has no weights where it can do without."""
    try:
        with torch.device("meta"):
            return Encoder(name, **json.loads(options)).pyramid
    except (UserError, RuntimeError, NotImplementedError):
        with torch.random.fork_rng(devices=[]):
            return Encoder(name, **json.loads(options)).pyramid


def _of_channels(values: Sequence[float], channels: int) -> torch.Tensor:
    """A constant of each channel, ``[C, 1, 1]``; their mean where there are other channels than it is known for."""
    known = torch.tensor(values)
    known = known if len(known) == channels else known.mean().expand(channels)
    return known.reshape(channels, 1, 1)


def _pretrained(config: TransferConfig, output_stride: int | None) -> tuple[nn.Module, str]:
    from mtl_heads.backbones import any_size_options
    from pretrain import CheckpointError, inspect_checkpoint, load_backbone

    model = config.model.common
    architecture = model.backbone or inspect_checkpoint(model.weights).architecture
    wanted: dict[str, Any] = any_size_options(architecture) if architecture else {}
    if output_stride is not None:
        wanted["output_stride"] = output_stride
    while True:
        try:
            backbone = load_backbone(model.weights, model.backbone, features_only=True,
                                     min_matched=model.min_matched, **{**wanted, **model.backbone_options})
            break
        except CheckpointError as error:
            # Not every model takes them; one that cannot be dilated may have the wanted stride of its own.
            refused = next((key for key in wanted if f"'{key}'" in str(error)), None)
            if refused is None and "output_stride" not in wanted:
                option = " (option --model.backbone)" if "architecture" in str(error) else ""
                raise CheckpointError(f"{error}{option}") from error
            del wanted[refused or "output_stride"]
    name = backbone.pretrained_cfg["architecture"]
    return remember(backbone, name, model.backbone_options), name
