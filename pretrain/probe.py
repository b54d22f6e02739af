"""Weighted kNN accuracy of frozen features on labelled scenes, during a run, on the main process alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.config import ProbeConfig
from pretrain.knn import knn_votes


class Probe:
    """Classifies the type of scenes by the votes of their neighbours among others.

    The scenes are always the same ones. The main process measures, the others wait for it in the next
    step: the key encoder is the same everywhere but for its batch statistics, of which those of the main
    process are saved.

    Args:
        config: how many images and neighbours, and how often.
        device: where features are computed.
        convention: ``mean`` and ``std`` that the backbone is trained with.

    Attributes:
        size: height and width of the scenes, in pixels.
    """

    size = 128

    def __init__(self, config: ProbeConfig, device: torch.device, convention: Mapping[str, tuple[float, ...]]) -> None:
        from scenes import SCENE_TYPES, Scenes

        self.every, self.k, self.device = config.every, config.k, device
        self.classes = len(SCENE_TYPES)
        self.mean, self.std = (torch.tensor(convention[key], device=device).view(3, 1, 1) for key in ("mean", "std"))
        self.sets = [Scenes(split=split, count=config.images, size=self.size) for split in ("train", "val")]
        self.labels = [torch.from_numpy(part.scene_types.astype(np.int64)) for part in self.sets]

    @torch.no_grad()
    def accuracy(self, backbone: nn.Module) -> float:
        """Percent of the validation scenes classified right; the backbone's mode is restored."""
        training = backbone.training
        backbone.eval()
        train, val = (self._features(backbone, part.images) for part in self.sets)
        backbone.train(training)
        scores = knn_votes(train, self.labels[0].to(self.device), val, self.classes, self.k)
        return (scores.argmax(1).cpu() == self.labels[1]).float().mean().item() * 100

    def _features(self, backbone: nn.Module, images: object) -> Tensor:
        features = []
        for start in range(0, len(images), 64):
            batch = torch.from_numpy(images[start : start + 64].copy()).to(self.device).permute(0, 3, 1, 2)
            features.append(F.normalize(backbone((batch.float() / 255 - self.mean) / self.std).float(), dim=1))
        return torch.cat(features)
