"""Revisiting contrastive methods (Van Gansbeke et al. 2021): MoCo with a queue of backbone features."""

from __future__ import annotations

from pretrain.formats.base import FORMATS
from pretrain.formats.layout import Layout
from pretrain.formats.moco import PREFIX, ROLES


@FORMATS.register("Revisiting-Contrastive-SSL")
class Revisiting(Layout):
    """MoCo v2's names; the second queue, of the backbone's features, is its mark."""

    prefixes, signs, roles = (PREFIX,), ("encoder_q.fc.0.", "queue_backbone"), ROLES
