"""MoCo v3 (Chen, Xie, He 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pretrain.formats.base import FORMATS, Encoder, Loaded
from pretrain.formats.layout import Layout


@FORMATS.register("MoCo v3")
class MoCoV3(Layout):
    """The base encoder, a ResNet (head ``fc``) or a vision transformer (head ``head``)."""

    prefixes, signs = ("base_encoder.",), ("base_encoder.", "momentum_encoder.")
    roles = {
        "projection head": ("base_encoder.fc.", "base_encoder.head."),
        "momentum encoder": ("momentum_encoder.",),
        "predictor": ("predictor.",),
    }

    def finish(self, encoder: Encoder, loaded: Loaded, state: Mapping[str, Any]) -> Encoder:
        """Its small transformer has 12 heads, where all others of that width have 6; no shape tells."""
        token = encoder.state.get("cls_token")
        heads = {"num_heads": 12} if token is not None and token.shape[-1] == 384 else {}
        return replace(encoder, options={**encoder.options, **heads})
