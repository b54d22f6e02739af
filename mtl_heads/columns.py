"""Networks with an encoder per task that exchange features after every stage."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from harness.errors import UserError
from mtl_heads.blocks import PerTask
from mtl_heads.encoder import Encoder
from mtl_heads.model import MultiTaskModel
from mtl_heads.output import Output
from mtl_heads.registry import ARCHITECTURES
from mtl_heads.stages import stages_of
from mtl_heads.task_heads import TaskHeads
from mtl_heads.tasks import Tasks

PUBLISHED_LR_MULTIPLIER = 100.0  # made for SGD (Misra et al., 2016; Gao et al., 2019)


class Exchange(nn.Module):
    """What the columns do with one feature map each."""

    def forward(self, maps: dict[str, Tensor], tasks: Sequence[str]) -> dict[str, Tensor]:
        """New maps of some tasks, from those ``[B, C, h, w]`` of all."""
        raise NotImplementedError


class Columns(MultiTaskModel):
    """Base class: a column (encoder and head) per task, and an exchange after each stage of the encoders.

    Networks with several branches exchange the maps of each branch. All tasks have columns, auxiliary
    ones too. A single task has nobody to exchange with: its network is the single-task one.

    A subclass defines :meth:`exchange`.

    Args:
        backbone: of the first task, as a timm name or a module that returns a list of features; the others
            begin as copies of it.
        tasks: any.
        alpha: first weight of a task's own features.
        beta: first weight of each other task's features.
        lr_multiplier: the exchanges' learning rate is that of the run times this; by default 100 with SGD, and
            1 with adaptive optimisers.
        head: head of the dense tasks; image tasks have a linear one.
        head_options: options of that head.
        neck: what stands between each backbone and its head.
        neck_options: options of the neck.
        output_stride: stride of the coarsest features; by default the backbone's own.
        backbone_options: keyword arguments of ``timm.create_model``.

    Raises:
        UserError: the backbone cannot be cut into stages, or the multiplier is not positive.
    """

    shared_representation = False
    starts_from_single_task = True

    def __init__(
        self,
        backbone: str | nn.Module,
        tasks: Tasks,
        *,
        alpha: float = 0.9,
        beta: float = 0.1,
        lr_multiplier: float | None = None,
        head: str = "deeplab",
        head_options: dict[str, Any] | None = None,
        neck: str = "none",
        neck_options: dict[str, Any] | None = None,
        output_stride: int | None = None,
        backbone_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(tasks)
        encoder = Encoder(
            backbone,
            output_stride=output_stride,
            neck=neck,
            neck_options=neck_options,
            backbone_options=backbone_options,
        )
        if lr_multiplier is not None and not lr_multiplier > 0:
            raise UserError(f"lr_multiplier is {lr_multiplier}: give a positive number")
        stages = stages_of(encoder)
        self.encoders = PerTask(dict(zip(tasks.all, encoder.copies(len(tasks.all)), strict=True)))
        self.heads = TaskHeads(encoder.pyramid, tasks, head, head_options)
        counts = stages.channels if len(tasks.all) > 1 else []
        #: one list per stage, with one exchange for each map
        self.exchanges = nn.ModuleList(
            nn.ModuleList(self.exchange(number, alpha, beta) for number in maps) for maps in counts
        )
        self.lr_multiplier = lr_multiplier
        self._stages = {task: stages.of_copy(self.encoders[task]) for task in tasks.all}

    def exchange(self, channels: int, alpha: float, beta: float) -> Exchange:
        """An exchange of maps of a number of channels; the weights are those of the constructor."""
        raise NotImplementedError

    def forward(self, images: Tensor, tasks: Iterable[str] | None = None) -> Output:
        tasks = self.task_set.select(tasks)
        size = (images.shape[-2], images.shape[-1])
        return self.decode(self._encode(images, tasks), size, tasks)

    def encode(self, images: Tensor) -> dict[str, list[Tensor]]:
        """The pyramid of each task's column."""
        return self._encode(images, self.task_set.all)

    def decode(
        self, representation: dict[str, list[Tensor]], size: tuple[int, int], tasks: Iterable[str] | None = None
    ) -> Output:
        maps: dict[str, Tensor] = {}
        for task in self.task_set.select(tasks):
            maps |= self.heads(representation[task], size, [task])
        return self._output(maps)

    def parameter_groups(self) -> list[dict[str, Any]]:
        own = {} if self.lr_multiplier is not None else {"adaptive_lr_scale": 1.0}
        scale = PUBLISHED_LR_MULTIPLIER if self.lr_multiplier is None else self.lr_multiplier
        return self._groups(self.exchanges.parameters(), scale, name="exchanges", **own)

    def single_task_prefixes(self, task: str) -> dict[str, str]:
        head = f"heads.{self.heads.key(task)}."
        return {"encoder.": f"encoders.{self.encoders.key(task)}.", head: head}

    def vandenhende_prefixes(self) -> dict[str, str]:
        """Those of the columns; a subclass adds its exchanges'."""
        if any(len(exchanges) > 1 for exchanges in self.exchanges):
            name = ARCHITECTURES.name_of(type(self))
            raise UserError(f"{name} of several branches is not in the original code base: use a ResNet")
        prefixes: dict[str, str] = {}
        for task in self.tasks:
            prefixes[f"backbone.{task}."] = f"encoders.{self.encoders.key(task)}.backbone."
            prefixes[f"heads.{task}."] = self.heads.vandenhende_prefix(task)
        return prefixes

    def _encode(self, images: Tensor, wanted: Sequence[str]) -> dict[str, list[Tensor]]:
        """Pyramids of the wanted tasks; what they alone do not need is left out of the last exchange."""
        stages = self._stages
        everybody = list(stages) if len(self.exchanges) else wanted
        last = next(iter(stages.values())).count - 1
        states = dict.fromkeys(everybody, next(iter(stages.values())).start(images))  # the same for all
        history: dict[str, list[list[Tensor]]] = {task: [] for task in everybody}
        for i in range(last + 1):
            states = {task: stages[task].run(i, states[task]) for task in everybody}
            if len(self.exchanges):
                readers = wanted if i == last else everybody
                exchanged = [
                    exchange({task: states[task][branch] for task in everybody}, readers)
                    for branch, exchange in enumerate(self.exchanges[i])
                ]
                states = {task: [maps[task] for maps in exchanged] for task in readers}
            for task, state in states.items():
                history[task].append(state)
        size = (images.shape[-2], images.shape[-1])
        return {task: stages[task].pyramid(history[task], size) for task in wanted}
