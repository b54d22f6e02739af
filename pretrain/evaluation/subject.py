"""The backbones that are evaluated."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from harness.config import digest
from harness.seeding import derive_seed
from pretrain.checkpoints import content_digest, load_backbone
from pretrain.matching import create

RANDOM = "random:"
"""What stands before a timm name, or before a checkpoint whose architecture is to be taken without its weights."""


@dataclass
class Subject:
    """A backbone by its name.

    Args:
        source: checkpoint as :func:`pretrain.load_backbone` takes it, or ``random:`` and a timm name or checkpoint.
        label: what tables call it; by default made from ``source``.
        architecture: timm name for checkpoints that do not say theirs.
        seed: of random weights.

    Attributes:
        digest: hash of what the weights depend on: the checkpoint's content, or the random network's name and seed.

    Raises:
        UserError: there is no such checkpoint or model.
    """

    source: str
    label: str = ""
    architecture: str | None = None
    seed: int = 0
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        self._options: dict[str, Any] = {}
        if self.source.startswith(RANDOM):
            name = self.source.removeprefix(RANDOM)
            if not timm.is_model(name):
                with torch.random.fork_rng(devices=[]):
                    known = load_backbone(name, self.architecture).pretrained_cfg
                name, self._options = known["architecture"], dict(known["options"])
            self.architecture = name
            self.digest = digest([RANDOM, name, self._options, self.seed, timm.__version__, torch.__version__])
        else:
            self.digest = content_digest(self.source)
            if self.architecture:
                self.digest += f"-{self.architecture}"
        self.label = self.label or _label(self.source)

    def build(self, **options: Any) -> nn.Module:
        """The network without classifier, in evaluation mode, without gradients.

        Args:
            options: more arguments of ``timm.create_model``, for example ``output_stride``.

        Raises:
            CheckpointError: the checkpoint or the architecture does not allow it.
        """
        with torch.random.fork_rng(devices=[]):
            if not self.source.startswith(RANDOM):
                model = load_backbone(self.source, self.architecture, **options)
            else:
                torch.manual_seed(derive_seed("random backbone", self.seed))
                model = create(self.architecture, {"num_classes": 0, **self._options})
                if options:  # the same weights, however the order of their making changes
                    state = model.state_dict()
                    model = create(self.architecture, {"num_classes": 0, **self._options, **options})
                    model.load_state_dict(state)
                model.pretrained_cfg = {**model.pretrained_cfg, "options": dict(self._options)}  # as of a checkpoint
        return model.eval().requires_grad_(False)


def _label(source: str) -> str:
    """A run's folder by its name, a file by its own unless all runs call it so."""
    prefix, rest = (RANDOM, source.removeprefix(RANDOM)) if source.startswith(RANDOM) else ("", source)
    path = Path(rest)
    parts = [part for part in path.parts if part not in ("checkpoints", "backbone.safetensors", "last.pt", "best.pt")]
    name = parts[-1] if parts else rest
    return f"{prefix.rstrip(':')} {name}".strip()
