"""What frozen features know of geometry and classes, in seconds: ridge regression on built-in scenes.

    python -m benchmarks.frozen_features [CHECKPOINT…]

For each checkpoint (and for random weights of the demo's backbone) all features of the pyramid are averaged over cells
of 16 pixels; a ridge regression from 128 training scenes predicts each cell's mean depth, mean normal and share of each
class on 128 validation scenes. Printed: R², the share of cells whose largest class is right, and the effective rank
of the last features over pixels with the share of their variance that lies within images (batch statistics).
"""

from __future__ import annotations

import argparse

import numpy as np
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.program import run_program
from pretrain import load_backbone
from pretrain.augmentation import IMAGENET_MEAN, IMAGENET_STD
from pretrain.health import effective_rank
from scenes import SEMSEG_CLASSES, Scenes

CELL = 16
DEMO = {"layers": (1, 1, 1, 1), "channels": (32, 64, 128, 256), "zero_init_last": False}


def load_scenes(split: str, count: int) -> tuple[Tensor, Tensor]:
    """Normalised images ``[N, 3, H, W]`` and cells' targets ``[N · cells, 1 + 3 + classes]``."""
    source = Scenes(split, count)
    samples = [source.sample(i) for i in range(count)]
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (IMAGENET_MEAN, IMAGENET_STD))
    images = torch.from_numpy(np.stack([sample["image"] for sample in samples])).permute(0, 3, 1, 2).float() / 255
    depth = torch.from_numpy(np.stack([sample["depth"] for sample in samples]))[:, None]
    normals = torch.from_numpy(np.stack([sample["normals"] for sample in samples])).permute(0, 3, 1, 2)
    classes = torch.from_numpy(np.stack([sample["semseg"] for sample in samples])).long()
    shares = F.one_hot(classes.clamp(max=len(SEMSEG_CLASSES)), len(SEMSEG_CLASSES) + 1)[..., :-1]
    targets = torch.cat([depth, normals, shares.permute(0, 3, 1, 2).float()], 1)
    return (images - mean) / std, F.avg_pool2d(targets, CELL).permute(0, 2, 3, 1).flatten(0, 2)


@torch.no_grad()
def cell_features(backbone: nn.Module, images: Tensor) -> Tensor:
    """All features of the pyramid at the cells, ``[N · cells, C]``."""
    size, found = images.shape[-1] // CELL, []
    backbone.eval()
    for part in images.split(32):
        maps = [F.interpolate(m, size=size, mode="area" if m.shape[-1] > size else "bilinear") for m in backbone(part)]
        found.append(torch.cat(maps, 1))
    return torch.cat(found).permute(0, 2, 3, 1).flatten(0, 2)


def scores(backbone: nn.Module, train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor]) -> list[float]:
    """R² of depth, normals and class shares, accuracy in percent (best of three ridge penalties by their sum)."""
    a, b = (cell_features(backbone, images) for images in (train[0], val[0]))
    mean, std = a.mean(0), a.std(0) + 1e-5
    a, b = (F.pad((x - mean) / std, (0, 1), value=1.0) for x in (a, b))
    truth, found = val[1], []
    for penalty in (100.0, 1000.0, 5000.0):
        weights = torch.linalg.solve(a.T @ a + penalty * torch.eye(a.shape[1]), a.T @ train[1])
        guess = b @ weights
        r2 = 1 - (guess - truth).square().sum(0) / (truth - truth.mean(0)).square().sum(0).clamp(min=1e-9)
        right = (guess[:, 4:].argmax(1) == truth[:, 4:].argmax(1)).float().mean().item()
        found.append([r2[0].item(), r2[1:4].mean().item(), r2[4:].mean().item(), 100 * right])
    return max(found, key=lambda row: sum(row[:3]))


@torch.no_grad()
def spread(backbone: nn.Module, images: Tensor) -> tuple[float, float]:
    """Effective rank of the last features over pixels, and the share of their variance within images."""
    backbone.train()
    last = backbone(images[:64])[-1]
    pixels = last.permute(0, 2, 3, 1).flatten(0, 2)
    return effective_rank(pixels).item(), (last.var((2, 3)).mean() / pixels.var(0).mean()).item()


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.frozen_features", description=__doc__.split("\n")[0])
    parser.add_argument("checkpoints", nargs="*", metavar="CHECKPOINT", help="files, or folders of runs")
    arguments = parser.parse_args()
    train, val = load_scenes("train", 128), load_scenes("val", 128)
    torch.manual_seed(0)
    backbones = {"random weights": timm.create_model("resnet18", features_only=True, **DEMO)}
    print(f"{'weights':<44} depth R²  normals R²  classes R²  cells right %   rank  within images", flush=True)
    for name in ["random weights", *arguments.checkpoints]:
        backbone = backbones.get(name) or load_backbone(name, features_only=True)
        depth, normals, classes, right = scores(backbone, train, val)
        rank, within = spread(backbone, val[0])
        print(f"{name[-44:]:<44} {depth:8.3f}  {normals:10.3f}  {classes:10.3f}  {right:13.1f}  {rank:5.1f}  "
              f"{within:13.2f}", flush=True)
    return 0


if __name__ == "__main__":
    run_program(main)
