"""DeepLab-v3 head."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import ASPP

from harness.errors import UserError
from mtl_heads.blocks import PooledBatchNorm2d, conv_bn_relu
from mtl_heads.encoder import Pyramid
from mtl_heads.heads.base import Head
from mtl_heads.registry import HEADS


@HEADS.register("deeplab")
class DeepLab(Head):
    """Atrous spatial pyramid pooling, then 3x3 and 1x1 (Chen et al., "Rethinking atrous convolution", 2017).

    Args:
        pyramid: shape of the features; the main one is read.
        outputs: output channels of the task.
        image: must be False.
        width: channels inside.
        rates: dilation rates at output stride 8; they shrink as the stride grows, so that the
            field of view in pixels stays (12, 24, 36 become 6, 12, 18 at 16).
        dropout: share of the pooled features dropped in training.
    """

    vandenhende_prefix = "layers."

    def __init__(
        self,
        pyramid: Pyramid,
        outputs: int,
        image: bool = False,
        *,
        width: int = 256,
        rates: tuple[int, ...] = (12, 24, 36),
        dropout: float = 0.5,
    ) -> None:
        super().__init__(pyramid, outputs, image)
        if width < 1 or not rates or min(rates) < 1 or not 0 <= dropout <= 1:
            raise UserError(
                f"head 'deeplab': width {width}, rates {rates} or dropout {dropout} is out of range"
            )
        stride = pyramid.strides[pyramid.main]
        scaled = [max(1, round(rate * 8 / stride)) for rate in rates]
        pooling = ASPP(pyramid.channels[pyramid.main], scaled, width)
        pooling.convs[-1][2] = PooledBatchNorm2d(width)
        pooling.project[3] = nn.Dropout(dropout)
        self.layers = nn.Sequential(pooling, *conv_bn_relu(width, width, 3), nn.Conv2d(width, outputs, 1))

    def predict(self, gathered: Tensor) -> Tensor:
        return self.layers(gathered)
