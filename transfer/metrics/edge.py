"""Edge detection."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from transfer.metrics.base import SetMetric, ratio
from transfer.metrics.thresholds import threshold_counts
from transfer.metrics.units import percent


class Edge(SetMetric):
    """The F-measure of pooled pixels at the one best threshold of the whole set (percent).

    ``odsF`` follows the published protocol (Martin et al. 2004, "optimal data-set scale"; Arbeláez et al. 2011, as used
    by Vandenhende 2022, chapter 5): at each threshold the prediction is thinned to lines of one pixel, and found and
    true pixels are paired one to one where they are at most ``tolerance`` of the image's diagonal apart.
    F = 2 · pairs / (found + true), with all three summed over the set. Labels are taken as they are. Pixels without a
    label are left out after thinning.

    ``odsF_quick`` counts a predicted pixel only exactly on a true one, without thinning: it costs nothing, and its
    numbers lie below and do not compare.

    Args:
        thresholds: number of equally spaced thresholds inside (0, 1).
        tolerance: share of the diagonal; with 0 there is no ``odsF``.
    """

    units = percent("odsF", "odsF_quick")

    def __init__(self, thresholds: int = 99, tolerance: float = 0.0075) -> None:
        super().__init__()
        levels = torch.linspace(0, 1, thresholds + 2)[1:-1].logit()  # logits need no sigmoid
        self.register_buffer("thresholds", levels, persistent=False)
        self.tolerance = tolerance
        for name in ("hits", "false", "pairs", "thinned"):
            self.add_sum(name, thresholds)
        self.add_sum("positives")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add logits ``[B, 1, H, W]`` and labels ``[B, H, W]`` (0, 1; 255 ignored)."""
        score = prediction[:, 0].float()
        hits, false, labelled = threshold_counts(score, target, self.thresholds)
        self.hits += hits.sum(0)
        self.false += false.sum(0)
        self.positives += labelled[:, 1].sum()
        if not self.tolerance:
            return
        for one, label, known in zip(score.cpu().numpy(), target.cpu().numpy(), labelled.sum(1).tolist(), strict=True):
            if known:
                counts = torch.from_numpy(self._tolerant(one, label)).to(self.pairs.device)
                self.pairs += counts[0]
                self.thinned += counts[1]

    def _tolerant(self, score: np.ndarray, label: np.ndarray) -> np.ndarray:
        """Pairs and found pixels of an image at each threshold, int64 ``[2, T]``."""
        from transfer.metrics.matching import matched_pixels
        from transfer.metrics.thinning import thin

        levels = self.thresholds.cpu().numpy()
        passed = np.searchsorted(levels, score, side="right")  # how many it reaches
        different = np.unique(passed)
        different = different[different > 0]  # in between, the prediction stays the same
        result = np.zeros((2, len(levels)), np.int64)
        if not len(different):
            return result
        lines = thin(passed[None] >= different[:, None, None]) & (label <= 1)
        counts = np.stack([matched_pixels(lines, label == 1, self.tolerance * float(np.hypot(*label.shape))),
                           lines.sum((1, 2))])
        # at the k-th threshold counts what reaches k + 1 of them: the prediction of the next different number
        place = np.searchsorted(different, np.arange(1, len(levels) + 1))
        some = place < len(different)
        result[:, some] = counts[:, place[some]]
        return result

    def compute(self) -> dict[str, float]:
        """``{"odsF", "odsF_quick"}`` in percent; ``nan`` when neither an edge nor a prediction of one exists."""
        # F = 2 TP / (predicted + true), which is 2PR / (P + R) without its divisions by zero
        quick = {"odsF_quick": _best(ratio(2 * self.hits, self.hits + self.false + self.positives, 100))}
        if not self.tolerance:
            return quick
        return {"odsF": _best(ratio(2 * self.pairs, self.thinned + self.positives, 100)), **quick}


def _best(f: Tensor) -> float:
    defined = f[~f.isnan()]
    return float(defined.max()) if len(defined) else float("nan")
