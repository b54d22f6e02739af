"""VirTex (Desai and Johnson 2021): a backbone learned from captions."""

from __future__ import annotations

from pretrain.formats.base import FORMATS
from pretrain.formats.layout import Layout


@FORMATS.register("VirTex")
class VirTex(Layout):
    """The visual backbone of the captioning model."""

    containers = ("model", "state_dict", "")
    prefixes, signs = ("visual.cnn.",), ("visual.cnn.", "textual.")
    roles = {"text model": ("textual.", "backward_textual.")}
