"""Single-task attention network on SegNet."""

from __future__ import annotations

from typing import Any

from torch import nn

from mtl_heads.mtan_segnet import MTANSegNet
from mtl_heads.registry import ARCHITECTURES
from mtl_heads.tasks import Tasks


@ARCHITECTURES.register("stan_segnet")
class STANSegNet(MTANSegNet):
    """MTAN-SegNet with one task: shows what its attention does without a second one (Liu, 2018, section 2.3.2).

    Args:
        backbone: ``"segnet"``, or such a module.
        tasks: exactly one.
        head: head of a dense task; an image task has a linear one.
        head_options: options of that head.
        f_reduction: shared channels per channel of the layer f on the attended features.
        g_reduction: shared channels per channel of the layer g inside the mask.
        backbone_options: of SegNet; only with a name.

    Raises:
        UserError: there are several tasks.
    """

    def __init__(
        self,
        backbone: str | nn.Module,
        tasks: Tasks,
        *,
        head: str = "segnet",
        head_options: dict[str, Any] | None = None,
        f_reduction: int = 4,
        g_reduction: int = 2,
        backbone_options: dict[str, Any] | None = None,
    ) -> None:
        tasks.require_one("stan_segnet", "mtan_segnet")
        super().__init__(
            backbone,
            tasks,
            head=head,
            head_options=head_options,
            f_reduction=f_reduction,
            g_reduction=g_reduction,
            backbone_options=backbone_options,
        )
