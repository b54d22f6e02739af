"""SwAV (Caron et al. 2020), and DeepCluster v2 and SeLa v2 of the same project."""

from __future__ import annotations

from pretrain.formats.base import FORMATS
from pretrain.formats.layout import Layout

# The standard deviation of red is 0.228 there, in training and evaluation.
CONVENTION = {"mean": (0.485, 0.456, 0.406), "std": (0.228, 0.224, 0.225)}


class _SwAV(Layout):
    """A ResNet with a projection head and prototypes beside its layers."""

    signs = ("projection_head", "prototypes")
    roles = {"projection head": ("projection_head",), "prototypes": ("prototypes",)}
    convention = CONVENTION


@FORMATS.register("SwAV")
class SwAV(_SwAV):
    """As released: a flat file."""

    containers = ("",)


@FORMATS.register("SwAV training")
class SwAVTraining(_SwAV):
    """As a training run writes it; its queue is in files of their own."""
