"""Linear head."""

from __future__ import annotations

from torch import Tensor, nn

from harness.errors import UserError
from mtl_heads.encoder import Pyramid
from mtl_heads.heads.base import Head
from mtl_heads.registry import HEADS


@HEADS.register("linear")
class Linear(Head):
    """One linear layer: on the mean of the coarsest features for image tasks, on each cell for dense ones.

    Args:
        pyramid: shape of the features.
        outputs: output channels of the task.
        image: the task predicts one vector per image.
        dropout: share of the features dropped in training.
    """

    serves_image_tasks = True

    def __init__(self, pyramid: Pyramid, outputs: int, image: bool = False, *, dropout: float = 0.0) -> None:
        super().__init__(pyramid, outputs, image)
        if not 0 <= dropout <= 1:
            raise UserError(f"head 'linear': dropout {dropout} is not between 0 and 1")
        inputs = pyramid.channels[-1 if image else pyramid.main]
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(inputs, outputs) if image else nn.Conv2d(inputs, outputs, 1)

    def gather(self, features: list[Tensor]) -> Tensor:
        return features[-1].mean((2, 3)) if self.image else super().gather(features)

    def predict(self, gathered: Tensor) -> Tensor:
        return self.classifier(self.dropout(gathered))
