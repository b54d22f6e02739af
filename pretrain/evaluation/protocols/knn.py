"""Weighted k-nearest-neighbour classification."""

from __future__ import annotations

from pathlib import Path

import torch

from harness.errors import UserError
from pretrain.evaluation.base import PROTOCOLS, Finding, Protocol
from pretrain.evaluation.features import Features, unit
from pretrain.evaluation.labelled import Labelled
from pretrain.probe import knn_votes


@PROTOCOLS.register("knn")
class KNearestNeighbors(Protocol):
    """Votes of the most similar training images, weighted by exp(cosine / τ) (Wu et al., 2018).

    Args:
        k: how many of them; a figure for each.
        temperature: τ.
    """

    needs = "class"

    def __init__(self, k: list[int] = (20, 200), temperature: float = 0.07) -> None:
        if not k or min(k) < 1:
            raise UserError(f"knn.k is {list(k)}: give numbers of neighbours, 1 or more")
        if temperature <= 0:
            raise UserError(f"knn.temperature is {temperature}: set it above 0")
        self.k, self.temperature = list(k), temperature
        self.columns = {f"top1_k{number}": f"kNN {number} [%]" for number in self.k}

    def measure(self, features: Features | None, data: Labelled | None, folder: Path, seed: int) -> Finding:
        learn, test = data.split(data.learn), data.split(data.test)
        known, queries = (unit(features.pooled(part, data.resize, data.crop)) for part in (learn, test))
        labels, truth = (torch.from_numpy(part.classes()) for part in (learn, test))
        metrics = {}
        for k in self.k:
            votes = knn_votes(known, labels, queries, len(data.names["class"]), k, self.temperature)
            metrics[f"top1_k{k}"] = (votes.argmax(1) == truth).float().mean().item() * 100
        return Finding(metrics)
