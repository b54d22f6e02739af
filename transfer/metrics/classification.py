"""Image classification."""

from __future__ import annotations

import torch
from torch import Tensor

from transfer.metrics.base import SetMetric, ratio

IGNORED = -1


class Classification(SetMetric):
    """Top-1 and top-5 accuracy (percent) over the labelled images of a set."""

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("images")
        self.add_sum("hits", 2)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add scores ``[B, C]`` and class indices ``[B]`` (−1 ignored)."""
        ranked = prediction.topk(min(5, prediction.shape[1]), dim=1).indices
        correct = ranked == target[:, None]  # a label of −1 is equal to none
        self.hits += torch.stack([correct[:, 0].sum(), correct.any(1).sum()])
        self.images += (target != IGNORED).sum()

    def compute(self) -> dict[str, float]:
        """``{"accuracy", "top5"}`` in percent; with five classes or fewer ``top5`` is 100."""
        accuracy, top5 = ratio(self.hits, self.images, 100).tolist()
        return {"accuracy": accuracy, "top5": top5}
