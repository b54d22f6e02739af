"""U-Net."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import UserError
from mtl_heads.blocks import PerTask, conv_bn_relu, resize
from mtl_heads.encoder import Encoder, Pyramid
from mtl_heads.heads.linear import Linear
from mtl_heads.model import MultiTaskModel
from mtl_heads.output import Output
from mtl_heads.registry import ARCHITECTURES
from mtl_heads.tasks import Tasks

CLASSIFIERS = ("bottleneck", "segmentation")


@ARCHITECTURES.register("unet")
class UNet(MultiTaskModel):
    """U-Net whose encoder and decoder all tasks share; each dense task adds a 1x1 convolution.

    The glaucoma network of Pascal (2021, section 5.3) with backbone ``vgg16_bn`` and ``out_indices`` 0 to 4:
    features at strides 1, 2, 4, 8 and 16, four skip connections (Ronneberger et al., "U-Net", 2015).
    Any backbone with several strides will do; all its features are joined, the decoder ends at the finest
    one, and predictions are resized from there.

    Image tasks read the bottleneck, the coarsest features: their mean through a linear layer. With
    ``classifier="segmentation"`` they read the dense tasks' predictions as well, averaged to the
    bottleneck's size and joined to it by a 3x3 convolution (Wu et al., 2023, section 3.1); their loss
    then reaches the decoder too.

    Args:
        backbone: timm name, or a module that returns a list of features.
        tasks: any; predictions of auxiliary ones are intermediate.
        decoder_channels: of the decoder's stages, coarse to fine; by default those of the features at
            the same strides.
        classifier: what image tasks read, ``bottleneck`` or ``segmentation``.
        classifier_reads: main dense tasks whose predictions are read with ``segmentation``; by default all.
        classifier_dropout: share of the image tasks' last features dropped in training (0.8 in the
            glaucoma network).
        neck: what stands between the backbone and the decoder; a plain transformer takes ``simple_pyramid``.
        neck_options: options of the neck.
        output_stride: stride of the coarsest features, 8, 16 or 32; by default the backbone's own.
        backbone_options: keyword arguments of ``timm.create_model``.

    Raises:
        UserError: the backbone has one stride only, or an option does not fit the tasks.
    """

    def __init__(
        self,
        backbone: str | nn.Module,
        tasks: Tasks,
        *,
        decoder_channels: Sequence[int] | None = None,
        classifier: str = "bottleneck",
        classifier_reads: Sequence[str] | None = None,
        classifier_dropout: float = 0.0,
        neck: str = "none",
        neck_options: dict[str, Any] | None = None,
        output_stride: int | None = None,
        backbone_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(tasks)
        self.read = _read_tasks(tasks, classifier, classifier_reads)
        self.encoder = Encoder(
            backbone,
            output_stride=output_stride,
            neck=neck,
            neck_options=neck_options,
            backbone_options=backbone_options,
            finest_stride=1,
        )
        pyramid = self.encoder.pyramid
        maps = {**tasks.dense, **tasks.auxiliary}
        if maps:
            self.decoder = UNetDecoder(pyramid, decoder_channels)
        self.heads = PerTask({task: nn.Conv2d(self.decoder.outputs, n, 1) for task, n in maps.items()})
        if self.read:
            extra = sum(tasks.dense[task] for task in self.read)
            classifiers = {
                task: SegmentationClassifier(pyramid.channels[-1], extra, n, classifier_dropout)
                for task, n in tasks.image.items()
            }
        else:
            classifiers = {
                task: Linear(pyramid, n, image=True, dropout=classifier_dropout)
                for task, n in tasks.image.items()
            }
        self.classifiers = PerTask(classifiers)

    @classmethod
    def single_task_options(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """With head ``unet``: a U-Net for each task."""
        found = super().single_task_options(options)
        return {**found, "head": "unet", "head_options": {"channels": options.get("decoder_channels")}}

    @property
    def backbone(self) -> nn.Module:
        """The timm model."""
        return self.encoder.backbone

    def encode(self, images: Tensor) -> list[Tensor]:
        return self.encoder(images)

    def decode(
        self, representation: list[Tensor], size: tuple[int, int], tasks: Iterable[str] | None = None
    ) -> Output:
        tasks = self.task_set.select(tasks)
        images = [task for task in tasks if task in self.task_set.image]
        maps = self._maps(representation, [task for task in tasks if task not in images], bool(images))
        predictions = {task: resize(maps[task], size) for task in tasks if task not in images}
        if images:
            if self.read:
                bottleneck = representation[-1]
                grid = bottleneck.shape[-2:]
                read = [F.adaptive_avg_pool2d(maps[task], grid) for task in self.read]
                gathered = torch.cat([bottleneck, *read], dim=1)
            else:
                gathered = representation[-1].mean((2, 3))
            predictions |= {task: self.classifiers[task].predict(gathered) for task in images}
        return self._output(predictions)

    def _maps(self, features: list[Tensor], dense: list[str], classify: bool) -> dict[str, Tensor]:
        """Predictions, at the decoder's size, of those dense tasks and of what the classifier reads."""
        needed = dict.fromkeys([*dense, *(self.read if classify else ())])
        if not needed:
            return {}
        decoded = self.decoder(features)
        return {task: self.heads[task](decoded) for task in needed}


class UNetDecoder(nn.Module):
    """From the coarsest features to the finest, each joined on the way.

    Args:
        pyramid: shape of the features, at least two strides.
        channels: of the stages, coarse to fine; by default those of the features that they join.

    Raises:
        UserError: there is one stride only, or another number of stages than of features to join.
    """

    def __init__(self, pyramid: Pyramid, channels: Sequence[int] | None = None) -> None:
        super().__init__()
        pyramid.require_scales("the decoder of a U-Net")
        joined = pyramid.channels[-2::-1]
        channels = tuple(joined if channels is None else channels)
        if len(channels) != len(joined) or min(channels) < 1:
            raise UserError(
                f"the decoder of a U-Net: decoder_channels {channels} do not fit {pyramid.name}: give "
                f"{len(joined)} positive numbers, coarse to fine, or leave them out"
            )
        factors = [
            coarse / fine
            for fine, coarse in zip(pyramid.strides[-2::-1], pyramid.strides[:0:-1], strict=True)
        ]
        inputs = (pyramid.channels[-1], *channels[:-1])
        self.stages = nn.ModuleList(map(UpStage, inputs, joined, channels, factors))
        self.outputs = channels[-1]

    def forward(self, features: list[Tensor]) -> Tensor:
        """``[B, outputs, h, w]`` at the size of the finest features."""
        decoded = features[-1]
        for stage, feature in zip(self.stages, features[-2::-1], strict=True):
            decoded = stage(decoded, feature)
        return decoded


class UpStage(nn.Module):
    """Double the size with a transposed 2x2 convolution, join the encoder's features, two 3x3 convolutions.

    Where the size is not to be doubled, a 1x1 convolution and a bilinear resize take the place of the
    transposed one.

    Args:
        inputs: channels of what comes from below.
        joined: channels of the encoder's features.
        outputs: channels of the result.
        factor: how much finer the encoder's features are.
    """

    def __init__(self, inputs: int, joined: int, outputs: int, factor: float) -> None:
        super().__init__()
        self.up = (
            nn.ConvTranspose2d(inputs, outputs, 2, stride=2) if factor == 2 else nn.Conv2d(inputs, outputs, 1)
        )
        self.convolutions = nn.Sequential(
            conv_bn_relu(outputs + joined, outputs, 3), conv_bn_relu(outputs, outputs, 3)
        )

    def forward(self, below: Tensor, joined: Tensor) -> Tensor:
        # Odd sizes do not double to the encoder's: the resize takes up the one row or column.
        raised = resize(self.up(below), tuple(joined.shape[-2:]))
        return self.convolutions(torch.cat([joined, raised], dim=1))


class SegmentationClassifier(nn.Module):
    """3x3 convolution over the bottleneck and the predictions, mean, linear layer.

    Args:
        bottleneck: channels of the bottleneck, and inside.
        maps: channels of the predictions.
        outputs: of the task.
        dropout: share of the pooled features dropped in training.
    """

    def __init__(self, bottleneck: int, maps: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.join = conv_bn_relu(bottleneck + maps, bottleneck, 3)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(bottleneck, outputs)

    def predict(self, gathered: Tensor) -> Tensor:
        """``[B, outputs]`` from both, concatenated."""
        return self.classifier(self.dropout(self.join(gathered).mean((2, 3))))


def _read_tasks(tasks: Tasks, classifier: str, reads: Sequence[str] | None) -> list[str]:
    """Dense tasks whose predictions the image tasks read."""
    if classifier not in CLASSIFIERS:
        raise UserError(
            f"architecture 'unet': classifier '{classifier}' is not one of {', '.join(CLASSIFIERS)}"
        )
    if classifier == "bottleneck":
        if reads is not None:
            raise UserError(
                "architecture 'unet': classifier_reads has an effect with classifier 'segmentation' only"
            )
        return []
    reads = list(tasks.dense) if reads is None else list(reads)
    unknown = [task for task in reads if task not in tasks.dense]
    if not tasks.image or not reads or unknown:
        dense = ", ".join(tasks.dense) or "none"
        raise UserError(
            "architecture 'unet': classifier 'segmentation' needs an image task and main dense tasks to read "
            f"({f'{unknown[0]!r} is none of them; ' if unknown else ''}dense: {dense}): choose 'bottleneck' or "
            "change classifier_reads"
        )
    return reads
