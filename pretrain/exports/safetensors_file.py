"""timm's names in a safetensors file, with the input convention and the architecture in its header."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from pretrain.backbone_file import save_backbone
from pretrain.exports.base import EXPORTS, Export


@EXPORTS.register("safetensors")
class Safetensors(Export):
    """The format of ours: nothing has to be remembered beside it."""

    suffixes = (".safetensors",)

    def write(self, path: Path, model: nn.Module, source: str) -> str:
        """Tensors and header."""
        config = model.pretrained_cfg
        save_backbone(path, model, config["architecture"], config["mean"], config["std"], config["input_size"],
                      {"source": source}, config["options"])
        return ""
