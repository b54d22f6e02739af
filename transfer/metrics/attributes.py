"""Several yes-or-no attributes of an image."""

from __future__ import annotations

import torch
from torch import Tensor

from transfer.metrics.base import SetMetric, mean_where, ratio
from transfer.metrics.units import percent


class Attributes(SetMetric):
    """Mean accuracy, F1, precision and recall (percent), each averaged over attributes.

    Source: the CelebA protocol of Sener and Koltun 2018 (mean error) and Pascal 2021, chapter 4
    (F1, since attributes are not balanced). Accuracy averages the attributes with a label; the
    others those that occur in truth or prediction, where a missing denominator counts 0.

    Args:
        attributes: number of attributes.
    """

    units = percent("mean_accuracy", "F1", "precision", "recall")

    def __init__(self, attributes: int) -> None:
        super().__init__()
        for name in ("hits", "found", "positives", "correct", "labelled"):
            self.add_sum(name, attributes)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add logits ``[B, A]`` and labels ``[B, A]`` (0, 1; 255 ignored)."""
        labelled = (target == 0) | (target == 1)
        found, positive = (prediction > 0) & labelled, target == 1
        self.hits += (found & positive).sum(0)
        self.found += found.sum(0)
        self.positives += positive.sum(0)
        self.correct += ((found == positive) & labelled).sum(0)
        self.labelled += labelled.sum(0)

    def compute(self) -> dict[str, float]:
        """``{"mean_accuracy", "F1", "precision", "recall"}`` in percent."""
        occurs = (self.found + self.positives) > 0
        score = {
            "F1": ratio(2 * self.hits, self.found + self.positives, 100),
            "precision": ratio(self.hits, self.found, 100),
            "recall": ratio(self.hits, self.positives, 100),
        }
        return {
            "mean_accuracy": mean_where(ratio(self.correct, self.labelled, 100), self.labelled > 0),
            **{name: mean_where(torch.nan_to_num(value), occurs) for name, value in score.items()},
        }
