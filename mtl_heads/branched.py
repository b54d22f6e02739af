"""Branched multi-task network."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from mtl_heads.encoder import Encoder
from mtl_heads.model import MultiTaskModel
from mtl_heads.output import Output
from mtl_heads.registry import ARCHITECTURES
from mtl_heads.stages import State, stages_of
from mtl_heads.task_heads import TaskHeads
from mtl_heads.tasks import Tasks
from mtl_heads.trees import make_tree, split_tree

Pyramid = list[Tensor]


@ARCHITECTURES.register("branched")
class Branched(MultiTaskModel):
    """A tree of encoder stages: tasks share the first ones, then split into groups, and split again.

    Each group of tasks at each stage has a copy of that stage; the copies begin with the same
    weights. Each group at the last stage has a neck of its own, and each task a head
    (Vandenhende 2022, chapter 4, figure 4.1b). ``python -m transfer.branch`` searches the tree by
    task affinity.

    Args:
        backbone: timm name, or a module that returns a list of features.
        tasks: any.
        tree: for each stage, shallow to deep, the groups of tasks that share it, for example
            [[[semseg, depth]], [[semseg], [depth]]] for two stages; auxiliary tasks are in it too.
            By default all tasks share all stages but the last.
        head: head of the dense tasks; image tasks have a linear one.
        head_options: options of that head.
        neck: what stands between the backbone and the heads.
        neck_options: options of the neck.
        output_stride: stride of the coarsest features, 8, 16 or 32; by default the backbone's own.
        backbone_options: keyword arguments of ``timm.create_model``.

    Attributes:
        tree: groups of tasks for each stage.
        shared_representation: whether the tasks are together to the end, as in the baseline.

    Raises:
        UserError: the backbone cannot be cut into stages, or the tree is none of these tasks and stages.
    """

    def __init__(
        self,
        backbone: str | nn.Module,
        tasks: Tasks,
        *,
        tree: list[list[list[str]]] | None = None,
        head: str = "deeplab",
        head_options: dict[str, Any] | None = None,
        neck: str = "none",
        neck_options: dict[str, Any] | None = None,
        output_stride: int | None = None,
        backbone_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(tasks)
        self.encoder = Encoder(
            backbone,
            output_stride=output_stride,
            neck=neck,
            neck_options=neck_options,
            backbone_options=backbone_options,
        )
        trunk = stages_of(self.encoder)
        if tree is None:
            self.tree = split_tree(tasks.all, trunk.count, first=trunk.count - 1)
        else:
            self.tree = make_tree(tree, tasks.all, trunk.count)
        leaves = self.tree[-1]
        self.shared_representation = len(leaves) == 1
        self._leaf_of = {task: i for i, leaf in enumerate(leaves) for task in leaf}
        # For each leaf the first leaf of its group at each stage, whose encoder runs that stage.
        self._runner = [
            [self._leaf_of[next(group for group in level if leaf[0] in group)[0]] for level in self.tree]
            for leaf in leaves
        ]
        self._stages = [trunk]
        self.branches = nn.ModuleList()  # of all leaves but the first, each with the stages that it runs
        for leaf in range(1, len(leaves)):
            _, branch = self.encoder.copies(2)
            stages = trunk.of_copy(branch)
            stages.keep([i for i, runner in enumerate(self._runner[leaf]) if runner == leaf])
            self._stages.append(stages)
            self.branches.append(branch)
        self.heads = TaskHeads(self.encoder.pyramid, tasks, head, head_options)

    def forward(self, images: Tensor, tasks: Iterable[str] | None = None) -> Output:
        tasks = self.task_set.select(tasks)
        return self.decode(self._encode(images, tasks), (images.shape[-2], images.shape[-1]), tasks)

    def encode(self, images: Tensor) -> Pyramid | dict[str, Pyramid]:
        """The pyramid that all tasks read, or where they do not read the same one, that of each task."""
        return self._encode(images, self.task_set.all)

    def decode(
        self,
        representation: Pyramid | dict[str, Pyramid],
        size: tuple[int, int],
        tasks: Iterable[str] | None = None,
    ) -> Output:
        selected = self.task_set.select(tasks)
        found: dict[str, Tensor] = {}
        for leaf in self.tree[-1]:
            wanted = [task for task in leaf if task in selected]
            if wanted:
                pyramid = representation if self.shared_representation else representation[wanted[0]]
                found |= self.heads(pyramid, size, wanted)
        return self._output(found)

    def _encode(self, images: Tensor, tasks: Iterable[str]) -> Pyramid | dict[str, Pyramid]:
        """Each stage once for each group that has one of the tasks."""
        size = (images.shape[-2], images.shape[-1])
        start = self._stages[0].start(images)
        done: dict[tuple[int, int], State] = {}
        pyramids: dict[int, Pyramid] = {}
        for leaf in dict.fromkeys(self._leaf_of[task] for task in tasks):
            states: list[State] = []
            for stage, runner in enumerate(self._runner[leaf]):
                if (stage, runner) not in done:
                    before = states[-1] if states else start
                    done[stage, runner] = self._stages[runner].run(stage, before)
                states.append(done[stage, runner])
            pyramids[leaf] = self._stages[leaf].pyramid(states, size)
        if self.shared_representation:
            return pyramids[0]
        return {task: pyramids[self._leaf_of[task]] for task in tasks}
