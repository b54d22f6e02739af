"""What all heads have in common."""

from __future__ import annotations

from torch import Tensor, nn

from harness.errors import UserError
from mtl_heads.encoder import FINEST_STRIDE, Pyramid


class Head(nn.Module):
    """Base class of the heads.

    A head works in two steps: :meth:`gather` has no parameters and makes its input of the features,
    so that it is done once for all tasks with the same kind of head; :meth:`predict` does the rest.

    Args:
        pyramid: shape of the features.
        outputs: output channels of the task.
        image: the task predicts one vector per image instead of a map.

    Raises:
        UserError: the head cannot serve an image task.
    """

    #: Whether the head can predict one vector per image.
    serves_image_tasks: bool = False
    #: Stride of the finest features that it reads where the backbone has them; the baseline keeps those for it.
    finest_stride: int = FINEST_STRIDE
    #: What stands before our names of the parameters, and not before those of the original code base;
    #: None: it has no such head.
    vandenhende_prefix: str | None = None

    def __init__(self, pyramid: Pyramid, outputs: int, image: bool = False) -> None:
        super().__init__()
        if image and not self.serves_image_tasks:
            raise UserError(f"head {type(self).__name__} predicts maps: image tasks take head 'linear'")
        self.pyramid = pyramid
        self.outputs = outputs
        self.image = image

    def gather(self, features: list[Tensor]) -> Tensor:
        """What the head reads of the features; by default the pyramid's main one."""
        return features[self.pyramid.main]

    def predict(self, gathered: Tensor) -> Tensor:
        """``[B, outputs, h, w]`` at the size of what was gathered or finer, or ``[B, outputs]``."""
        raise NotImplementedError

    def forward(self, features: list[Tensor]) -> Tensor:
        return self.predict(self.gather(features))
