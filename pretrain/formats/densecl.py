"""DenseCL (Wang et al. 2021)."""

from __future__ import annotations

from pretrain.formats.base import FORMATS
from pretrain.formats.layout import Layout


@FORMATS.register("DenseCL")
class DenseCL(Layout):
    """As released: the backbone under torchvision's names, with its author."""

    top = ("state_dict", "author")
    absent = ("encoder_q.",)
    rank = 20


@FORMATS.register("DenseCL training")
class DenseCLTraining(Layout):
    """As a training run writes it: ``backbone.`` and ``encoder_q.0.`` are the same tensors."""

    prefixes = ("backbone.", "encoder_q.0.")
    signs = ("encoder_q.0.", "encoder_q.1.")
    roles = {
        "projection head": ("encoder_q.1.",),
        "the backbone again": ("encoder_q.0.",),
        "momentum encoder": ("encoder_k.",),
        "queue": ("queue",),
    }
