"""MoCo, versions 1 and 2 (He et al. 2020; Chen et al. 2020)."""

from __future__ import annotations

from pretrain.formats.base import FORMATS
from pretrain.formats.layout import Layout

PREFIX = "encoder_q."
ROLES = {"projection head": ("encoder_q.fc.",), "momentum encoder": ("encoder_k.",), "queue": ("queue",)}


@FORMATS.register("MoCo v1")
class MoCoV1(Layout):
    """The query encoder; its ``fc`` is the embedding and no classifier."""

    prefixes, signs, roles = (PREFIX,), ("encoder_q.fc.weight",), ROLES
    absent = ("queue_backbone",)


@FORMATS.register("MoCo v2")
class MoCoV2(Layout):
    """The same, with a head of two layers."""

    prefixes, signs, roles = (PREFIX,), ("encoder_q.fc.0.", "encoder_q.fc.2."), ROLES
    absent = ("queue_backbone",)
