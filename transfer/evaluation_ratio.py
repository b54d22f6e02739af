"""A disease from the ratio of two segmented heights, averaged into a network's prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from harness.errors import UserError
from transfer.metrics.binary import largest_region

if TYPE_CHECKING:
    from transfer.engine import Transfer


def vertical_ratio(inner: Tensor, outer: Tensor) -> Tensor:
    """Height of one region over the height of another, such as optic cup over optic disc.

    Each mask is refined to its largest connected region first (Pascal 2021, section 5.3.1).

    Args:
        inner: bool ``[B, H, W]``.
        outer: bool ``[B, H, W]``.

    Returns:
        float64 ``[B]``; 0 where the inner one is missing, 1 where only the outer one is.
    """
    heights = [torch.stack([_height(largest_region(mask)) for mask in masks]) for masks in (inner, outer)]
    return torch.where(heights[1] > 0, heights[0] / heights[1].clamp_min(1), (heights[0] > 0).double())


def _height(mask: Tensor) -> Tensor:
    rows = mask.any(1).nonzero().flatten()
    return (rows[-1] - rows[0] + 1).double() if len(rows) else torch.zeros((), dtype=torch.float64, device=mask.device)


class LinearClassifier:
    """Logistic regression on one number: p = σ(a x + b), with a small penalty on a so that it always exists.

    Args:
        x: values ``[N]``.
        y: 0 or 1 ``[N]``.
        penalty: weight of a² / 2 beside the summed cross-entropy, x being in units of its standard deviation.

    Raises:
        UserError: only one of the two classes occurs.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, penalty: float = 1.0) -> None:
        x, y = np.asarray(x, float), np.asarray(y, float)
        if len(set(y.tolist())) < 2:
            raise UserError("the classifier on the ratio needs training images of both classes: the split has one only")
        self.mean, self.spread = x.mean(), x.std() or 1.0
        z = np.stack([(x - self.mean) / self.spread, np.ones_like(x)], 1)
        w = np.zeros(2)
        ridge = np.diag([penalty, 1e-9])
        for _ in range(100):  # Newton's method, whose objective is convex
            p = 1 / (1 + np.exp(-(z @ w)))
            step = np.linalg.solve((z * (p * (1 - p))[:, None]).T @ z + ridge, z.T @ (p - y) + ridge @ w)
            w -= step / max(1.0, float(np.abs(step).max()))
            if np.abs(step).max() < 1e-10:
                break
        self.a, self.b = w

    def __call__(self, x: Tensor) -> Tensor:
        """Probability of class 1, float64 ``[N]``."""
        return torch.sigmoid(self.a * (x.double() - self.mean) / self.spread + self.b)


def with_ratio(transfer: Transfer, names: tuple[str, str, str], split: str) -> dict[str, dict[str, float]]:
    """Metrics of a two-class task whose probabilities are averaged with those of a classifier on a ratio.

    Args:
        transfer: a trained run, which predicts both splits.
        names: of the classification task, and of the segmentations of the inner and the outer thing.
        split: what to evaluate on; the classifier is fitted to the training split.

    Returns:
        The metrics of ``NAME_with_ratio``.

    Raises:
        UserError: the task has not two classes.
    """
    task = transfer.tasks[names[0]]
    if task.dense or task.channels != 2:
        raise UserError(f"task '{names[0]}' must have one of two classes for each image, for the ratio's classifier")
    ratios, _, truth = _predicted(transfer, names, "train")
    known = truth >= 0
    classifier = LinearClassifier(ratios[known].numpy(), truth[known].numpy())
    ratios, own, truth = _predicted(transfer, names, split)
    mean = (own + classifier(ratios)) / 2
    metric = task.metric()
    metric.update(torch.stack([1 - mean, mean], 1).clamp_min(1e-300).log().float(), truth)
    return {f"{names[0]}_with_ratio": metric.compute()}


@torch.no_grad()
def _predicted(transfer: Transfer, names: tuple[str, str, str], split: str) -> tuple[Tensor, Tensor, Tensor]:
    """Of every image of a split, in order: predicted ratio, predicted probability of class 1, true class."""
    from transfer.data.loading import Evaluated, evaluation_batches
    from transfer.prediction.views import Views

    config, network, device = transfer.config, transfer.network, transfer.world.device
    samples = Evaluated(transfer.data.split(split), config.evaluation.size)
    tasks = {names[0]: transfer.tasks[names[0]]}
    columns: list[list[Tensor]] = [[], [], []]
    model = Views(network.model, {name: transfer.tasks[name] for name in names}, config.evaluation.flip,
                  config.evaluation.scales)
    training = network.model.training
    network.model.eval()
    for batch in evaluation_batches(samples, tasks, config):
        found = model(network.normalise(batch["image"].to(device)), list(names)).predictions
        inner, outer = (found[name][:, 0].cpu() > 0 for name in names[1:])
        columns[0].append(vertical_ratio(inner, outer))
        columns[1].append(found[names[0]].cpu().double().softmax(1)[:, 1])
        columns[2].append(batch["targets"][names[0]])
    network.model.train(training)
    return torch.cat(columns[0]), torch.cat(columns[1]), torch.cat(columns[2])
