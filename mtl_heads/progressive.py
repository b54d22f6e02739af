"""Progressive network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import UserError
from mtl_heads.blocks import PerTask, resize
from mtl_heads.encoder import Encoder
from mtl_heads.model import MultiTaskModel
from mtl_heads.output import Output
from mtl_heads.registry import ARCHITECTURES
from mtl_heads.stages import State, stages_of
from mtl_heads.task_heads import TaskHeads
from mtl_heads.tasks import Tasks

_SMALL = 0.1


class LateralAdapter(nn.Module):
    """What a column takes from earlier columns: U σ(V [α_1 h_1; α_2 h_2; …]) (Rusu et al., 2016, equation 2).

    V and U are 1x1 convolutions and σ is ReLU; the scalars α begin as different small numbers. V
    reduces all columns' channels to those of one, so that adapters grow linearly with the columns.

    Args:
        columns: number of earlier columns.
        channels: of each column's map.
        reduction: channels of a map per channel after V; 1 in the paper.
    """

    def __init__(self, columns: int, channels: int, reduction: int = 1) -> None:
        super().__init__()
        narrow = max(1, channels // reduction)
        self.scales = nn.Parameter(torch.empty(columns).uniform_(0, _SMALL))
        self.reduce = nn.Conv2d(columns * channels, narrow, 1)
        self.restore = nn.Conv2d(narrow, channels, 1)

    def forward(self, own: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        """The column's map ``[B, C, h, w]`` with what comes from the earlier columns' maps added."""
        scales = self.scales.to(own.dtype).unbind()
        scaled = [scale * maps for scale, maps in zip(scales, earlier, strict=True)]
        return own + self.restore(self.reduce(torch.cat(scaled, 1)).relu())


@ARCHITECTURES.register("progressive")
class Progressive(MultiTaskModel):
    """Columns trained one after another; each reads the frozen ones before it through lateral adapters.

    Rusu et al., "Progressive neural networks" (2016); Liu, "Universal representations" (2018), section
    2.2.2. A column is an encoder and a head. After each stage of the encoder the earlier columns'
    features of that stage, through an adapter, are added to the column's own, for its next stage and for
    its head. No loss reaches an earlier column, so nothing that was learned is forgotten.

    A transfer run trains each column for the whole number of epochs, as a single-task network would
    be. The order matters; auxiliary tasks come first, since only later columns can use them.

    Args:
        backbone: timm name, or a module that returns a list of features; every column begins as a copy.
        tasks: any.
        order: all tasks, in the order of training; by default auxiliary tasks, dense tasks, image tasks.
        reduction: channels of a map per channel inside the adapters.
        head: head of the dense tasks; image tasks have a linear one.
        head_options: options of that head.
        neck: what stands between each backbone and its head.
        neck_options: options of the neck.
        output_stride: stride of the coarsest features, 8, 16 or 32; by default the backbone's own.
        backbone_options: keyword arguments of ``timm.create_model``.

    Raises:
        UserError: the backbone cannot be cut into stages, or the order is not one of the tasks.
    """

    shared_representation = False

    def __init__(
        self,
        backbone: str | nn.Module,
        tasks: Tasks,
        *,
        order: list[str] | None = None,
        reduction: int = 1,
        head: str = "deeplab",
        head_options: dict[str, Any] | None = None,
        neck: str = "none",
        neck_options: dict[str, Any] | None = None,
        output_stride: int | None = None,
        backbone_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(tasks)
        self.order = [*tasks.auxiliary, *tasks.main] if order is None else list(order)
        if sorted(self.order) != sorted(tasks.all):
            raise UserError(
                f"progressive: order is {', '.join(self.order)}, and the tasks are {', '.join(tasks.all)}: give each "
                "of them once"
            )
        if reduction < 1:
            raise UserError(f"progressive: reduction is {reduction}: give 1 or more")
        encoder = Encoder(
            backbone,
            output_stride=output_stride,
            neck=neck,
            neck_options=neck_options,
            backbone_options=backbone_options,
        )
        stages = stages_of(encoder)
        self.encoders = PerTask(dict(zip(self.order, encoder.copies(len(self.order)), strict=True)))
        self.adapters = PerTask(
            {
                task: nn.ModuleList(
                    nn.ModuleList(LateralAdapter(number, wide, reduction) for wide in maps) for maps in stages.channels
                )
                for number, task in enumerate(self.order)
                if number
            }
        )
        self.heads = TaskHeads(encoder.pyramid, tasks, head, head_options)
        self._stages = {task: stages.of_copy(self.encoders[task]) for task in self.order}
        self._trained: str | None = None
        self._fixed: set[str] | None = None

    def forward(self, images: Tensor, tasks: Iterable[str] | None = None) -> Output:
        tasks = self.task_set.select(tasks)
        size = (images.shape[-2], images.shape[-1])
        return self.decode(self._encode(images, tasks), size, tasks)

    def encode(self, images: Tensor) -> dict[str, list[Tensor]]:
        """The pyramid of each task's column."""
        return self._encode(images, self.order)

    def decode(
        self, representation: dict[str, list[Tensor]], size: tuple[int, int], tasks: Iterable[str] | None = None
    ) -> Output:
        predictions: dict[str, Tensor] = {}
        for task in self.task_set.select(tasks):
            prediction = self.heads[task](representation[task])
            predictions[task] = prediction if task in self.task_set.image else resize(prediction, size)
        return self._output(predictions)

    def phases(self) -> list[list[str]]:
        return [[task] for task in self.order]

    def enter_phase(self, number: int) -> None:
        """Train one column: the others' weights have no gradients, and their batch statistics stay."""
        self._trained = self.order[number]
        if self._fixed is None:  # what somebody else has frozen stays frozen
            self._fixed = {name for name, value in self.named_parameters() if not value.requires_grad}
        own = {id(value) for part in self._column(self._trained) for value in part.parameters()}
        for name, value in self.named_parameters():
            value.requires_grad_(id(value) in own and name not in self._fixed)
        self.train(self.training)

    def train(self, mode: bool = True) -> Progressive:
        super().train(mode)
        if self._trained is not None:
            for task in self.order:
                for part in self._column(task) if task != self._trained else ():
                    part.eval()
        return self

    def _column(self, task: str) -> list[nn.Module]:
        lateral = [self.adapters[task]] if task in self.adapters else []
        return [self.encoders[task], *lateral, self.heads[task]]

    def _encode(self, images: Tensor, wanted: Sequence[str]) -> dict[str, list[Tensor]]:
        """Pyramids of the wanted tasks; columns after the last of them do not run."""
        needed = self.order[: 1 + max((self.order.index(task) for task in wanted), default=-1)]
        start = self._stages[self.order[0]].start(images)  # the same for all
        size = (images.shape[-2], images.shape[-1])
        pyramids: dict[str, list[Tensor]] = {}
        columns: list[list[State]] = []  # of the columns so far, what each stage handed on
        for task in needed:
            states = self._run(task, start, columns)
            if task in wanted:
                pyramids[task] = self._stages[task].pyramid(states, size)
            columns.append([[maps.detach() for maps in state] for state in states])
        return pyramids

    def _run(self, task: str, state: State, columns: list[list[State]]) -> list[State]:
        """What each stage of a column hands on, from what its first one reads."""
        stages = self._stages[task]
        states: list[State] = []
        for i in range(stages.count):
            state = stages.run(i, state)
            if columns:
                state = [
                    adapter(maps, [column[i][branch] for column in columns])
                    for branch, (adapter, maps) in enumerate(zip(self.adapters[task][i], state, strict=True))
                ]
            states.append(state)
        return states
