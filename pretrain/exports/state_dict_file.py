"""timm's and torchvision's names in a file of torch: tensors and nothing else."""

from __future__ import annotations

from pathlib import Path

import torch
import torchvision
from torch import nn

from harness.checkpoint import save_file
from pretrain.exports.base import EXPORTS, Export


@EXPORTS.register("state dict of timm and torchvision")
class StateDictFile(Export):
    """What ``model.load_state_dict`` takes; the input convention is not in it."""

    suffixes = (".pth", ".pt")

    def write(self, path: Path, model: nn.Module, source: str) -> str:
        """A flat state dict."""
        save_file(path, {key: value.detach().cpu() for key, value in model.state_dict().items()})
        return _convention(model)


def _convention(model: nn.Module) -> str:
    config = model.pretrained_cfg
    built = "".join(f", {key}={value}" for key, value in config["options"].items())
    classes = getattr(model, "num_classes", 0)
    return (f"the file holds tensors only; its model is timm.create_model('{config['architecture']}', "
            f"num_classes={classes}{built}){_torchvision(model)}, for RGB in [0, 1] with mean "
            f"{_numbers(config['mean'])} and std {_numbers(config['std'])}, at {config['input_size'][1]}×"
            f"{config['input_size'][2]} pixels")


def _torchvision(model: nn.Module) -> str:
    """How torchvision's network of that name takes the file, where it has one of the same tensors but for ``fc``."""
    name = model.pretrained_cfg["architecture"]
    if name not in torchvision.models.list_models(torchvision.models) or model.pretrained_cfg["options"]:
        return ""
    with torch.device("meta"):
        there = torchvision.models.get_model(name).state_dict()
    here = model.state_dict()
    same = all(key in there and there[key].shape == value.shape for key, value in here.items()
               if not key.startswith("fc."))
    if not same or there.keys() - here.keys() - {"fc.weight", "fc.bias"}:
        return ""
    how = f"num_classes={len(here['fc.weight'])})" if "fc.weight" in here else ") once its fc is a torch.nn.Identity()"
    return f" or torchvision.models.{name}({how}"


def _numbers(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"
