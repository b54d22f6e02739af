"""Image classification."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

from transfer.metrics.base import SetMetric, mean_where, ratio
from transfer.metrics.units import percent

IGNORED = -1


class Classification(SetMetric):
    """Accuracies, F1, AUC, sensitivity and specificity (percent) over the labelled images of a set.

    With two classes the second one is "positive", and F1, AUC, sensitivity and specificity are its own. With more they
    are means over classes, each against the rest: F1 over those that occur in truth or prediction, sensitivity over
    those that occur in the truth, specificity and AUC over those that some images have and some have not. AUC is the
    area under the curve of true against false positives at every threshold, from the probabilities of all images
    (Pascal 2021, section 5.3; Wu 2023, table 2).

    Args:
        num_classes: number of classes.
    """

    units = percent("accuracy", "top5", "F1", "AUC", "sensitivity", "specificity")

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.add_sum("images")
        self.add_sum("top5")
        self.add_sum("confusion", num_classes, num_classes)
        self.num_classes = num_classes
        self.add_state("scores", [], dist_reduce_fx="cat")
        self.add_state("truths", [], dist_reduce_fx="cat")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add scores ``[B, C]`` and class indices ``[B]`` (−1 ignored)."""
        known = target != IGNORED
        scores, truth = prediction[known].float(), target[known]
        classes = scores.shape[1]
        ranked = scores.topk(min(5, classes), dim=1).indices
        self.top5 += (ranked == truth[:, None]).any(1).sum()
        self.images += known.sum()
        pairs = torch.bincount(truth * classes + ranked[:, 0], minlength=classes**2)
        self.confusion += pairs.view(classes, classes)
        self.scores.append(scores)
        self.truths.append(truth)

    def compute(self) -> dict[str, float]:
        """``{"accuracy", "top5", "F1", "AUC", "sensitivity", "specificity"}`` in percent.

        With five classes or fewer ``top5`` is 100; what has no images to be computed from is ``nan``.
        """
        hits, truth, found = self.confusion.diagonal(), self.confusion.sum(1), self.confusion.sum(0)
        rest = self.images - truth
        chosen = torch.zeros(len(hits), dtype=torch.bool, device=hits.device)
        chosen[1 if len(hits) == 2 else slice(None)] = True
        return {
            "accuracy": float(ratio(hits.sum(), self.images, 100)),
            "top5": float(ratio(self.top5, self.images, 100)),
            "F1": mean_where(ratio(2 * hits, truth + found, 100), chosen & (truth + found > 0)),
            "AUC": self._areas(chosen & (truth > 0) & (rest > 0)),
            "sensitivity": mean_where(ratio(hits, truth, 100), chosen & (truth > 0)),
            "specificity": mean_where(ratio(rest - found + hits, rest, 100), chosen & (rest > 0)),
        }

    def _sync_dist(self, *args: Any, **kwargs: Any) -> None:
        if not self.scores:  # a process without images; what it sends must have the others' dimensions
            self.scores = [torch.zeros(0, self.num_classes, device=self.device)]
            self.truths = [torch.zeros(0, dtype=torch.int64, device=self.device)]
        super()._sync_dist(*args, **kwargs)

    def _areas(self, chosen: Tensor) -> float:
        """Mean area under the curve over classes, percent."""
        indices = chosen.nonzero().flatten().tolist()
        if not indices:
            return float("nan")
        # after an exchange between processes the lists are tensors already
        scores, truths = (value if isinstance(value, Tensor) else torch.cat(value)
                          for value in (self.scores, self.truths))
        shares = scores.double().softmax(1)
        areas = [binary_auroc(shares[:, index], (truths == index).long(), validate_args=False) for index in indices]
        return 100 * sum(map(float, areas)) / len(areas)
