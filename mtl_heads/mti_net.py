"""MTI-Net."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from harness.errors import UserError
from mtl_heads.aggregation import FeatureAggregation
from mtl_heads.blocks import PerTask
from mtl_heads.decoder_focused import DecoderFocused
from mtl_heads.distillation import SpatialAttentionDistillation
from mtl_heads.feature_propagation import GROUPINGS, REDUCTION, FeaturePropagation
from mtl_heads.initial_prediction import InitialPrediction
from mtl_heads.registry import ARCHITECTURES
from mtl_heads.scales import finest_scales
from mtl_heads.tasks import Tasks
from mtl_heads.vandenhende import TaskBlocks


@ARCHITECTURES.register("mti_net")
class MtiNet(DecoderFocused):
    """Multi-scale task interaction network (Vandenhende et al., 2020; thesis, chapter 5).

    Every task, auxiliary ones included, makes an initial prediction at each scale, from coarse to fine;
    a feature propagation module passes the task features on to the next finer scale. At each scale the
    features of all others, gated by spatial attention, are added to those of every main task, and the
    final prediction reads all its scales.

    Made for pyramids whose scales have few channels: HRNet, or any backbone with ``neck: fpn``. On a
    plain ResNet it works, but the coarse scales then cost most of the parameters.
    ``Output.intermediate`` has the initial predictions of all scales, fine to coarse, in training.

    Args:
        backbone: timm name, or a module that returns a list of features.
        tasks: at least one that predicts a map; image tasks have a linear head.
        scales: how many scales to use, the finest ones; features of equal stride are one scale.
        propagation: pass task features from coarse to fine; without, the scales meet only at the end.
        grouping: over what the mask of the propagation is a softmax: ``paper``: the tasks; ``published``:
            neighbouring channels, as the published program reshapes it.
        propagation_reduction: channels of all tasks together, N·C, for each hidden channel of the propagation; 4 as
            published, 1 is what the costs in the thesis's table 5.6 are of.
        neck: what stands between the backbone and the task parts.
        neck_options: options of the neck.
        output_stride: stride of the coarsest features, 8, 16 or 32; by default the backbone's own.
        backbone_options: keyword arguments of ``timm.create_model``.

    Raises:
        UserError: no task predicts a map, the pyramid has too few scales, or an option has another value.
    """

    def __init__(
        self,
        backbone: str | nn.Module,
        tasks: Tasks,
        *,
        scales: int = 4,
        propagation: bool = True,
        grouping: Literal["paper", "published"] = "paper",
        propagation_reduction: int = REDUCTION,
        neck: str = "none",
        neck_options: dict[str, Any] | None = None,
        output_stride: int | None = None,
        backbone_options: dict[str, Any] | None = None,
    ) -> None:
        if grouping not in GROUPINGS:
            raise UserError(f"MtiNet has grouping='{grouping}': give one of {', '.join(GROUPINGS)}")
        if propagation_reduction < 1:
            raise UserError(f"MtiNet has propagation_reduction={propagation_reduction}: give 1 or more")
        super().__init__(
            backbone,
            tasks,
            neck=neck,
            neck_options=neck_options,
            output_stride=output_stride,
            backbone_options=backbone_options,
        )
        pyramid = self.encoder.pyramid
        self.scales = finest_scales(pyramid, scales, type(self).__name__)
        self.grouping, self.propagation_reduction = grouping, propagation_reduction
        channels = [pyramid.channels[scale] for scale in self.scales]
        coarser = [*channels[1:], 0] if propagation else [0] * len(channels)
        everything = self.map_tasks
        self.initial_prediction = nn.ModuleList(
            InitialPrediction(own + passed, own, everything)
            for own, passed in zip(channels, coarser, strict=True)
        )
        # The module at position s passes features on from scale s + 1 to scale s.
        self.propagation = nn.ModuleList(
            FeaturePropagation(everything, passed, grouping=grouping, reduction=propagation_reduction)
            for passed in coarser
            if passed
        )
        self.distillation = nn.ModuleList(
            SpatialAttentionDistillation(tasks.dense, everything, width, transform=True) for width in channels
        )
        self.heads = PerTask(
            {task: FeatureAggregation(channels, number) for task, number in tasks.dense.items()}
        )

    @property
    def intermediate_strides(self) -> list[int]:
        return [self.encoder.pyramid.strides[scale] for scale in self.scales]

    def decode_dense(
        self, features: list[Tensor], tasks: list[str], early: list[str]
    ) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
        targets = [task for task in tasks if task in self.task_set.dense]
        sources = list(self.map_tasks) if targets else tasks  # whose features are read after the front-end
        found = self._front_end([features[scale] for scale in self.scales], sources)
        initial = [part.predict(maps, early) for part, maps in zip(self.initial_prediction, found, strict=True)]
        distilled = [part(maps, targets) for part, maps in zip(self.distillation, found, strict=True)]
        final = {task: self.heads[task]([maps[task] for maps in distilled]) for task in targets}
        return final, initial

    def _front_end(self, features: list[Tensor], tasks: list[str]) -> list[dict[str, Tensor]]:
        """Task features at each scale, fine to coarse; made from coarse to fine."""
        found: list[dict[str, Tensor]] = []
        passed: dict[str, Tensor] | None = None
        for scale in reversed(range(len(features))):
            # A propagation module reads the features of all tasks.
            wanted = self.map_tasks if self.propagation and scale else tasks
            found.insert(0, self.initial_prediction[scale](features[scale], wanted, passed))
            if self.propagation and scale:
                following = self.map_tasks if scale > 1 else tasks
                passed = self.propagation[scale - 1](found[0], following)
        return found

    def vandenhende_prefixes(self) -> dict[str, str]:
        as_published = self.grouping == "published" and self.propagation_reduction == REDUCTION
        if not as_published or len(self.scales) != 4 or not self.propagation:
            raise UserError(
                "files of the original code base have four scales, propagation and its program's grouping: "
                f"build mti_net with grouping=published, and with propagation of reduction {REDUCTION} at four scales"
            )
        key = PerTask.key
        prefixes = {"backbone.": "encoder.backbone."}
        for scale, distillation in enumerate(self.distillation):
            for task in self.map_tasks:
                for part in ("refinement", "decoders"):
                    ours = f"initial_prediction.{scale}.{part}.{key(task)}."
                    prefixes[f"scale_{scale}.{part}.{task}."] = ours
            prefixes |= distillation.vandenhende_prefixes(
                f"distillation_scale_{scale}.", f"distillation.{scale}."
            )
        for scale in range(1, len(self.scales)):
            theirs, ours = f"fpm_scale_{scale}.", f"propagation.{scale - 1}."
            for task in self.map_tasks:
                prefixes[f"{theirs}se.{task}."] = f"{ours}se.{key(task)}."
            prefixes[theirs] = ours
        return prefixes | {f"heads.{task}.": f"heads.{key(task)}." for task in self.task_set.dense}

    def vandenhende_blocks(self) -> dict[str, TaskBlocks]:
        found: dict[str, TaskBlocks] = {}
        for scale, part in enumerate(self.propagation):
            together = len(part.tasks) * part.channels
            # Tasks can change places only if none of the published groups has channels of two of them.
            movable = part.channels % len(part.tasks) == 0
            for name, value in part.named_parameters():
                scores = name.startswith("non_linear.2.")
                if scores or value.dim() == 4 and value.shape[1] == together:
                    blocks = TaskBlocks(part.tasks, 0 if scores else 1, f"fpm_scale_{scale + 1}.se.", movable)
                    found[f"propagation.{scale}.{name}"] = blocks
        return found
