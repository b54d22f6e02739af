"""A ResNet for Detectron2: a pickle of numpy arrays under its names."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from harness.files import write_atomically
from pretrain.exports.base import EXPORTS, Export
from pretrain.formats.base import CheckpointError
from pretrain.formats.detectron2 import to_detectron2
from pretrain.matching import classifier_name


@EXPORTS.register("Detectron2")
class Detectron2File(Export):
    """What ``MODEL.WEIGHTS`` of Detectron2 takes."""

    suffixes = (".pkl",)

    def write(self, path: Path, model: nn.Module, source: str) -> str:
        """Arrays, and what our own loader needs.

        Raises:
            CheckpointError: the model is not one of the ResNets that Detectron2 builds.
        """
        config = model.pretrained_cfg
        head = f"{classifier_name(config['architecture'])}."
        arrays = {}
        for key, value in model.state_dict().items():
            name = to_detectron2(key)
            if key.startswith(head) or key.endswith("num_batches_tracked"):  # its frozen norms do not count
                continue
            if name is None:
                raise CheckpointError(f"Detectron2 has no place for {key} of '{config['architecture']}': it builds "
                                      "plain ResNets; export to .safetensors or .pth")
            arrays[name] = value.detach().cpu().numpy()
        content = {
            "model": arrays, "__author__": f"tasklift, from {source}", "matching_heuristics": True,
            "architecture": config["architecture"], "options": json.loads(json.dumps(dict(config["options"]))),
            "pretrained_cfg": {key: list(config[key]) for key in ("mean", "std", "input_size")},
        }
        write_atomically(path, lambda file: pickle.dump(content, file, protocol=4))
        mean, std = ([round(255 * value, 3) for value in config[key]] for key in ("mean", "std"))
        return (f"set in Detectron2: {_depth(config)}INPUT.FORMAT RGB, MODEL.RESNETS.STRIDE_IN_1X1 False, "
                f"MODEL.PIXEL_MEAN {mean}, MODEL.PIXEL_STD {std}")


def _depth(config: Mapping[str, Any]) -> str:
    """The options of Detectron2 that build the network, where it has one."""
    found = re.fullmatch(r"resnet(18|34|50|101|152)", config["architecture"])
    if found is None or config["options"]:
        return "a backbone of your own with these layers (none of its configurations has them), "
    narrow = ", MODEL.RESNETS.RES2_OUT_CHANNELS 64" if int(found[1]) < 50 else ""
    return f"MODEL.RESNETS.DEPTH {found[1]}{narrow}, "
