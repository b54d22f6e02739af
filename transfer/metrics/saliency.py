"""Saliency: per-image overlap at the set's best threshold."""

from __future__ import annotations

import torch
from torch import Tensor

from transfer.metrics.base import SetMetric, ratio
from transfer.metrics.thresholds import threshold_counts
from transfer.metrics.units import percent


class Saliency(SetMetric):
    """Maximum over thresholds of the mean per-image IoU, and of the F-measure (percent).

    Source: Maninis et al. 2019, as used by Vandenhende 2022, chapter 5, with the thresholds .2, .25,
    …, .9 of that protocol. F is 2PR / (P + R) of the per-image precisions' and recalls' means. In an
    image without a salient pixel all three are 1 if nothing is predicted and 0 otherwise; precision
    is 0 where a salient object is missed wholly. Images without labels do not count.
    """

    units = percent("max_mIoU", "maxF")

    def __init__(self) -> None:
        super().__init__()
        levels = torch.linspace(0.2, 0.9, 15).logit()  # logits need no sigmoid
        self.register_buffer("thresholds", levels, persistent=False)
        self.add_sum("images")
        self.add_sum("sums", 3, len(levels), dtype=torch.float64)  # IoU, precision, recall

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add logits ``[B, 1, H, W]`` and labels ``[B, H, W]`` (0, 1; 255 ignored)."""
        hits, false, labelled = threshold_counts(prediction[:, 0].float(), target, self.thresholds)
        positives = labelled[:, 1:]
        found, union = hits + false, positives + false
        both_empty = (union == 0).double()

        def share(part: Tensor, whole: Tensor) -> Tensor:
            return torch.where(whole > 0, part.double() / whole.clamp_min(1), both_empty)

        counted = labelled.sum(1) > 0
        values = torch.stack([share(hits, union), share(hits, found), share(hits, positives)])
        self.sums += (values * counted[:, None]).sum(1)
        self.images += counted.sum()

    def compute(self) -> dict[str, float]:
        """``{"max_mIoU", "maxF"}`` in percent."""
        iou, precision, recall = ratio(self.sums, self.images, 100)
        f = torch.where(precision + recall == 0, 0.0, 2 * precision * recall / (precision + recall))
        return {"max_mIoU": float(iou.max()), "maxF": float(f.max())}
