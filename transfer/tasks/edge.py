"""Edge detection."""

from __future__ import annotations

from torch import Tensor
from torchmetrics import Metric

from harness.errors import UserError
from transfer.metrics.edge import Edge as EdgeMetric
from transfer.tasks._binary import BinaryMap
from transfer.tasks._losses import binary_cross_entropy_sum, count, full_precision, per_label
from transfer.tasks.base import TASKS


@TASKS.register("edge")
class Edge(BinaryMap):
    """Is the pixel on a boundary: weighted binary cross-entropy, odsF (Vandenhende 2022, chapter 5).

    Args:
        positive_weight: weight w of edge pixels in the loss; the others weigh 1 − w.
        tolerance: how far from a true edge a found one may lie, as a share of the image's diagonal; 0 evaluates
            without thinning and tolerance (odsF_quick alone), which takes no time.
    """

    primary = "odsF"
    units = EdgeMetric.units

    def __init__(self, positive_weight: float = 0.95, tolerance: float = 0.0075) -> None:
        if not 0 <= positive_weight <= 1:
            raise UserError(f"edge: positive_weight {positive_weight} must lie between 0 and 1")
        if not 0 <= tolerance < 1:
            raise UserError(f"edge: tolerance {tolerance} must be at least 0 and below 1")
        self.positive_weight, self.tolerance = positive_weight, tolerance
        self.primary = "odsF" if tolerance else "odsF_quick"

    def normalizer(self, target: Tensor) -> Tensor:
        return count(target <= 1)

    def loss(self, prediction: Tensor, target: Tensor, normalizer: Tensor) -> Tensor:
        logits, w = full_precision(prediction)[:, 0], self.positive_weight
        labels = target.to(logits.dtype)
        weight = (labels * (2 * w - 1) + (1 - w)) * (target <= 1)  # w, 1 − w, or 0 without label
        return per_label(binary_cross_entropy_sum(logits, labels, weight), normalizer)

    def metric(self) -> Metric:
        return EdgeMetric(tolerance=self.tolerance)
