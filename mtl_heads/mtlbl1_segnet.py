"""First baseline of the attention network on SegNet."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from mtl_heads.blocks import PerTask
from mtl_heads.networks.segnet import SegNet, pool, unpool
from mtl_heads.registry import ARCHITECTURES
from mtl_heads.segnet_based import SegNetBased
from mtl_heads.tasks import Tasks


@ARCHITECTURES.register("mtlbl1_segnet")
class MTLBL1SegNet(SegNetBased):
    """A shared SegNet, and per task a whole SegNet that receives all features of the shared one (MTLBL1-SegNet).

    Liu, "Universal representations" (2018), section 2.3.2, figure 2.7a: like cross-stitch networks, with a
    shared network in place of the stitches. The shared features of a block are added to the task's own:
    that is what leaves 1 + T networks their parameters (3.02 and 4.03 times SegNet's for two and three
    tasks in its table 2.1). Task networks unpool at their own places.

    Args:
        backbone: ``"segnet"``, or such a module; the task networks start as copies of it.
        tasks: any.
        head: head of the dense tasks; image tasks have a linear one.
        head_options: options of that head.
        backbone_options: of SegNet; only with a name.
    """

    shared_representation = False

    def __init__(
        self,
        backbone: str | nn.Module,
        tasks: Tasks,
        *,
        head: str = "segnet",
        head_options: dict[str, Any] | None = None,
        backbone_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            backbone, tasks, head=head, head_options=head_options, backbone_options=backbone_options
        )
        networks = {task: copy.deepcopy(self.network) for task in self.task_set.all}
        for task in tasks.image:  # they end where the decoder starts
            networks[task].prune_intermediate_layers([-1])
        self.task_networks = PerTask(networks)

    def encode(self, images: Tensor, maps: bool | None = None) -> list[Tensor]:
        """The images, then the shared features of each block of the encoder and of the decoder."""
        encoded = self.network.encode(images)
        decoded = self.network.decode(encoded) if self._wants_maps(maps) else []
        return [images, *encoded.pooled, *decoded]

    def task_features(self, representation: list[Tensor], task: str) -> list[Tensor]:
        network: SegNet = self.task_networks[task]
        features, *shared = representation
        levels: list[tuple[Tensor, Tensor]] = []
        for block, received in zip(network.encoder, shared, strict=False):
            before = block(features)
            pooled, places = pool(before)
            features = pooled + received
            levels.append((places, before))
        deepest = features
        if task not in self.map_tasks:
            return [deepest]
        for block, (places, before), received in zip(
            network.decoder, reversed(levels), shared[len(levels) :], strict=True
        ):
            features = block(unpool(features, places, before)) + received
        return [features, deepest]
