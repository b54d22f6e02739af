"""Attentive single-tasking of multiple tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from harness.errors import UserError
from mtl_heads.blocks import PerTask
from mtl_heads.encoder import Encoder
from mtl_heads.gradient_discriminator import GradientDiscriminator
from mtl_heads.model import MultiTaskModel
from mtl_heads.modulation import BlockModulation
from mtl_heads.output import Output
from mtl_heads.registry import ARCHITECTURES
from mtl_heads.residual import ResidualStages
from mtl_heads.task_heads import TaskHeads
from mtl_heads.tasks import Tasks


@ARCHITECTURES.register("astmt")
class Astmt(MultiTaskModel):
    """One shared network that runs once for each task, changed a little for it inside every block.

    Maninis et al., "Attentive single-tasking of multiple tasks", 2019: each task gates the channels of
    the residual branches by squeeze-excitation and has residual adapters beside the 3x3 convolutions;
    optionally, a discriminator that tells tasks by their gradients of the encoder's last stage has its
    gradient reversed, so that these become alike. Stages before the first changed one are the same for
    all tasks and run once.

    As each pass meets other statistics, norms of changed stages are the tasks' own by default.

    Args:
        backbone: timm name of a ResNet, or a module that returns a list of its features.
        tasks: any; auxiliary ones have passes and heads too, and are in ``Output.intermediate``.
        squeeze_excite: gate residual branches per task.
        adapters: have residual adapters.
        norm: ``task``: each task has its own norms in the changed stages; ``shared``: none has.
        first_stage: number, from 1, of the first stage that is changed.
        reduction: channels of a gate for each hidden one.
        adversarial: strength of the reversed gradient of the discriminator; 0: there is none.
        head: head of the dense tasks; image tasks have a linear one.
        head_options: options of that head.
        neck: what stands between the encoder's features and the heads; all tasks share it.
        neck_options: options of the neck.
        output_stride: stride of the coarsest features, 8, 16 or 32; by default the backbone's own.
        backbone_options: keyword arguments of ``timm.create_model``.

    Raises:
        UserError: the backbone is not of timm's ResNet family, or an option is out of range.
    """

    shared_representation = False

    def __init__(
        self,
        backbone: str | nn.Module,
        tasks: Tasks,
        *,
        squeeze_excite: bool = True,
        adapters: bool = True,
        norm: Literal["task", "shared"] = "task",
        first_stage: int = 1,
        reduction: int = 16,
        adversarial: float = 0.0,
        head: str = "deeplab",
        head_options: dict[str, Any] | None = None,
        neck: str = "none",
        neck_options: dict[str, Any] | None = None,
        output_stride: int | None = None,
        backbone_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(tasks)
        if norm not in ("task", "shared"):
            raise UserError(f"astmt has norm='{norm}': give task or shared")
        if reduction < 1:
            raise UserError(f"astmt has reduction={reduction}: give a positive number")
        if not adversarial >= 0:
            raise UserError(f"astmt has adversarial={adversarial}: give a number that is not negative")
        if adversarial and len(tasks.all) < 2:
            raise UserError("astmt with adversarial makes tasks' gradients alike, and there is one task: leave it out")
        self.encoder = Encoder(
            backbone,
            output_stride=output_stride,
            neck=neck,
            neck_options=neck_options,
            backbone_options=backbone_options,
        )
        self.stages = ResidualStages(self.encoder, "astmt")
        if not 1 <= first_stage <= self.stages.count:
            raise UserError(f"astmt has first_stage={first_stage}: give one of 1 to {self.stages.count}")
        self.first_stage = first_stage - 1
        self.modulation = PerTask(
            {
                task: nn.ModuleList(
                    nn.ModuleList(
                        BlockModulation(
                            block,
                            owner=number == 0,
                            squeeze_excite=squeeze_excite,
                            adapters=adapters,
                            norm=norm,
                            reduction=reduction,
                        )
                        for block in self.stages.blocks(i)
                    )
                    for i in range(self.first_stage, self.stages.count)
                )
                for number, task in enumerate(tasks.all)
            }
        )
        self.heads = TaskHeads(self.encoder.pyramid, tasks, head, head_options)
        self.adversarial = adversarial
        self.discriminator = (
            GradientDiscriminator(self.stages.channels[-1], len(tasks.all)) if adversarial else None
        )
        self._watched: dict[str, Tensor] = {}

    @property
    def backbone(self) -> nn.Module:
        """The timm model; its own norms are the first task's."""
        return self.encoder.backbone

    def forward(self, images: Tensor, tasks: Iterable[str] | None = None) -> Output:
        tasks = self.task_set.select(tasks)
        size = (images.shape[-2], images.shape[-1])
        return self.decode(self._encode(images, tasks), size, tasks)

    def encode(self, images: Tensor) -> dict[str, list[Tensor]]:
        """The pyramid of each task's pass."""
        return self._encode(images, self.task_set.all)

    def decode(
        self, representation: dict[str, list[Tensor]], size: tuple[int, int], tasks: Iterable[str] | None = None
    ) -> Output:
        maps: dict[str, Tensor] = {}
        for task in self.task_set.select(tasks):
            maps |= self.heads(representation[task], size, [task])
        return self._output(maps)

    def penalty(
        self, tasks: Iterable[str] | None = None, losses: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        watched, self._watched = self._watched, {}
        if self.discriminator is None or losses is None:
            return {}
        if self._compiled_call_impl is not None:
            raise UserError("astmt with adversarial differentiates gradients, which torch.compile cannot: leave it out")
        terms: dict[str, Tensor] = {}
        for task in self.task_set.select(tasks):
            if task in watched and task in losses and losses[task].requires_grad:
                found = torch.autograd.grad(losses[task], watched[task], create_graph=True, materialize_grads=True)
                number = self.task_set.all.index(task)
                terms[task] = self.discriminator.loss(*found, number, self.adversarial)
        return terms

    def unreached_parameters(self) -> list[nn.Parameter]:
        # The discriminator has its loss from the penalty.
        reached = {id(value) for value in self.discriminator.parameters()} if self.discriminator else set()
        return [value for value in super().unreached_parameters() if id(value) not in reached]

    def _encode(self, images: Tensor, wanted: Sequence[str]) -> dict[str, list[Tensor]]:
        """A pass for each wanted task."""
        size = (images.shape[-2], images.shape[-1])
        value, early = self.stages.start(images)
        common: list[Tensor] = []
        for i in range(self.first_stage):
            value = self.stages.run(i, value)[-1]
            common.append(value)
        representation: dict[str, list[Tensor]] = {}
        for task in wanted:
            ends = [*common, *self._pass(value, task)]
            if self.discriminator is not None and self.training and torch.is_grad_enabled():
                self._watched[task] = ends[-1]
            representation[task] = self.stages.pyramid(early, ends, size)
        return representation

    def _pass(self, value: Tensor, task: str) -> list[Tensor]:
        """Outputs of the changed stages for a task."""
        ends: list[Tensor] = []
        for i, modulations in enumerate(self.modulation[task], self.first_stage):
            for block, modulation in zip(self.stages.blocks(i), modulations, strict=True):
                value = modulation(block, value)
            ends.append(value)
        return ends
