"""What the architectures that are built on SegNet have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from timm.models._features import FeatureGetterNet
from torch import Tensor, nn

from harness.errors import UserError
from mtl_heads.blocks import resize
from mtl_heads.encoder import Encoder, Pyramid
from mtl_heads.model import MultiTaskModel
from mtl_heads.networks.segnet import SegNet
from mtl_heads.output import Output
from mtl_heads.task_heads import TaskHeads
from mtl_heads.tasks import Tasks


class SegNetBased(MultiTaskModel):
    """Base class of networks that need SegNet's own blocks, and so no other backbone.

    Dense tasks are predicted from features of the images' size, image tasks from the mean of the
    features that SegNet's decoder starts from; a network without dense tasks runs no decoder.
    A subclass defines :meth:`encode` and :meth:`task_features`.

    Args:
        backbone: ``"segnet"``, or such a module with its whole decoder.
        tasks: any.
        head: head of the dense tasks; image tasks have a linear one.
        head_options: options of that head.
        backbone_options: of SegNet, such as ``channels`` and ``depths``; only with a name.

    Raises:
        UserError: the backbone is no SegNet.
    """

    def __init__(
        self,
        backbone: str | nn.Module,
        tasks: Tasks,
        *,
        head: str,
        head_options: dict[str, Any] | None,
        backbone_options: dict[str, Any] | None,
    ) -> None:
        super().__init__(tasks)
        self.encoder = Encoder(backbone, backbone_options=backbone_options)
        module = self.encoder.backbone
        name = self.encoder.backbone_pyramid.name
        network = module.model if isinstance(module, FeatureGetterNet) else module
        if not isinstance(network, SegNet):
            raise UserError(
                f"{type(self).__name__} works on the blocks of SegNet's encoder and decoder, which {name} does not "
                "have: choose backbone segnet, or another architecture"
            )
        if len(network.decoder) < len(network.encoder):
            raise UserError(f"{type(self).__name__} needs the whole decoder of {name}: leave out_indices out")
        pyramid = Pyramid(
            (network.channels[0], network.channels[-1]), (1, 2 ** len(network.channels)), main=0, name=name
        )
        self.heads = TaskHeads(pyramid, tasks, head, head_options)

    @property
    def network(self) -> SegNet:
        """The shared SegNet."""
        backbone = self.encoder.backbone
        return backbone.model if isinstance(backbone, FeatureGetterNet) else backbone

    @property
    def map_tasks(self) -> dict[str, int]:
        """Output channels of the tasks that predict maps: dense ones, then auxiliary ones."""
        return {**self.task_set.dense, **self.task_set.auxiliary}

    def forward(self, images: Tensor, tasks: Iterable[str] | None = None) -> Output:
        wanted = self.task_set.select(tasks)
        maps = any(task in self.map_tasks for task in wanted)
        return self.decode(self.encode(images, maps=maps), tuple(images.shape[-2:]), wanted)

    def encode(self, images: Tensor, maps: bool | None = None) -> list[Tensor]:
        """Features of the shared blocks, in order of execution.

        Args:
            images: ``[B, C, H, W]``.
            maps: whether a task that predicts maps is going to be decoded; by default, if there is one.
        """
        raise NotImplementedError

    def task_features(self, representation: list[Tensor], task: str) -> list[Tensor]:
        """What the head of a task reads: for maps ``[B, C, H, W]`` and the decoder's start, else the latter alone."""
        raise NotImplementedError

    def decode(
        self, representation: list[Tensor], size: tuple[int, int], tasks: Iterable[str] | None = None
    ) -> Output:
        predictions: dict[str, Tensor] = {}
        for task in self.task_set.select(tasks):
            prediction = self.heads[task](self.task_features(representation, task))
            predictions[task] = resize(prediction, size) if task in self.map_tasks else prediction
        return self._output(predictions)

    def _wants_maps(self, maps: bool | None) -> bool:
        return bool(self.map_tasks) if maps is None else maps
