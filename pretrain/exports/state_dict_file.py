"""timm's and torchvision's names in a file of torch: tensors and nothing else."""

from __future__ import annotations

from pathlib import Path

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
    return (f"the file holds tensors only; its model is timm.create_model('{config['architecture']}', num_classes=0"
            f"{built}), for RGB in [0, 1] with mean {_numbers(config['mean'])} and std {_numbers(config['std'])}, at "
            f"{config['input_size'][1]}×{config['input_size'][2]} pixels")


def _numbers(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"
