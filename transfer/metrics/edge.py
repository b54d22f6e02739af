"""Edge detection without spatial tolerance."""

from __future__ import annotations

import torch
from torch import Tensor

from transfer.metrics.base import SetMetric, ratio
from transfer.metrics.thresholds import threshold_counts


class Edge(SetMetric):
    """odsF_quick: the F-measure of pooled pixels at the one best threshold of the whole set (percent).

    Source: Martin et al. 2004 ("optimal data-set scale"), as used by Vandenhende 2022, chapter 5,
    with 99 thresholds. Here a predicted edge pixel counts only exactly on a true one: no thinning, no
    tolerance, so numbers lie below those of the tolerant protocol and do not compare with them.

    Args:
        thresholds: number of equally spaced thresholds inside (0, 1).
    """

    def __init__(self, thresholds: int = 99) -> None:
        super().__init__()
        levels = torch.linspace(0, 1, thresholds + 2)[1:-1].logit()  # logits need no sigmoid
        self.register_buffer("thresholds", levels, persistent=False)
        self.add_sum("hits", thresholds)
        self.add_sum("false", thresholds)
        self.add_sum("positives")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add logits ``[B, 1, H, W]`` and labels ``[B, H, W]`` (0, 1; 255 ignored)."""
        hits, false, labelled = threshold_counts(prediction[:, 0].float(), target, self.thresholds)
        self.hits += hits.sum(0)
        self.false += false.sum(0)
        self.positives += labelled[:, 1].sum()

    def compute(self) -> dict[str, float]:
        """``{"odsF_quick"}`` in percent; ``nan`` when neither an edge nor a prediction of one exists."""
        # F = 2 TP / (predicted + true), which is 2PR / (P + R) without its divisions by zero
        f = ratio(2 * self.hits, self.hits + self.false + self.positives, 100)
        return {"odsF_quick": float(f[~f.isnan()].max()) if bool((~f.isnan()).any()) else float("nan")}
