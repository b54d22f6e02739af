"""A plain state dict, as torchvision and timm publish them, and one in a wrapper."""

from __future__ import annotations

from pretrain.formats.base import FORMATS, Encoder, Format, Loaded, is_state_dict, take_prefix
from pretrain.formats.layout import Layout


@FORMATS.register("state dict")
class StateDict(Format):
    """Names and tensors, nothing above or around them but wrappers of data parallel or compile."""

    rank = 100

    def recognises(self, loaded: Loaded) -> bool:
        """Only tensors at the top level."""
        return is_state_dict(loaded.content)

    def encoder(self, loaded: Loaded) -> Encoder:
        """The whole file."""
        return take_prefix(loaded.content, "")


@FORMATS.register("wrapped state dict")
class WrappedStateDict(Layout):
    """A state dict under one of the usual keys, as the training programs of torchvision and timm write it.

    Of weights and their moving average the average is taken, as ``timm.create_model(checkpoint_path=…)`` does.
    """

    rank = 90
    containers = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict", "model_state", "net",
                  "network")
    prefixes = ("backbone.", "encoder.", "")
    convention = {}
    roles = {"count of the average": ("n_averaged",)}
