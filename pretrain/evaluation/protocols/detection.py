"""Object detection on PASCAL VOC, by Detectron2."""

from __future__ import annotations

import re
from pathlib import Path

from torch import nn

from harness.errors import UserError
from harness.files import write_text
from pretrain.evaluation import detectron2_training
from pretrain.evaluation.base import PROTOCOLS, Finding, Protocol
from pretrain.evaluation.features import Features
from pretrain.evaluation.labelled import Labelled
from pretrain.exports.detectron2_file import Detectron2File

_DEPTHS = {"resnet50": 50, "resnet101": 101, "resnet152": 152}


@PROTOCOLS.register("detection")
class Detection(Protocol):
    """Export for Detectron2's Faster R-CNN C4 on VOC07+12, 24 000 iterations (He et al., 2020, section 4.2.1).

    It measures nothing here: it writes the weights, the configuration, the program to start there and the command.

    Args:
        gpus: that the command in the README is for; the batch is 16 images on any number of them.
    """

    def __init__(self, gpus: int = 8) -> None:
        if gpus < 1 or 16 % gpus:
            raise UserError(f"detection.gpus is {gpus}: set it to 1, 2, 4, 8 or 16, which share 16 images out evenly")
        self.gpus = gpus

    def measure(self, features: Features | None, data: Labelled | None, folder: Path, seed: int) -> Finding:
        model, name = features.model, features.subject.label
        depth = _depth(model, name)
        weights, config, program, readme = (folder / file for file in
                                            ("backbone.pkl", "voc_c4_24k.yaml", "train.py", "README.md"))
        Detectron2File().write(weights, model, name)
        write_text(config, _configuration(model, depth, weights.name))
        write_text(program, Path(detectron2_training.__file__).read_text(encoding="utf-8"))
        command = f"python {program.name} --config-file {config.name} --num-gpus {self.gpus}"
        write_text(readme, _README.format(name=name, command=command))
        return Finding({}, files=[
            (weights, "the backbone for Detectron2"), (config, "configuration of the detector"),
            (program, "program to start there"), (readme, f"how to: {command}")],
            remarks=["Nothing is measured here: the detector is trained by Detectron2, with the command of README.md."])


def _depth(model: nn.Module, name: str) -> int:
    """The depth by which Detectron2 knows the network.

    Raises:
        UserError: its C4 detector cannot have it.
    """
    known = model.pretrained_cfg
    architecture, options = known["architecture"], known.get("options") or {}
    plain = f"detection: {name} is {architecture}"
    advice = f"give a checkpoint of {', '.join(_DEPTHS)}, or leave detection out of --tasks"
    if architecture not in _DEPTHS:
        reason = ("whose blocks are not those that Detectron2's C4 detector has behind its regions (bottlenecks)"
                  if re.fullmatch(r"resnet(18|34)", architecture) else "which this recipe of Detectron2 does not have")
        raise UserError(f"{plain}, {reason}: {advice}")
    if options:
        given = ", ".join(f"{key} {value}" for key, value in options.items())
        raise UserError(f"{plain} with {given}, which Detectron2 does not build: {advice}")
    return _DEPTHS[architecture]


def _configuration(model: nn.Module, depth: int, weights: str) -> str:
    mean, std = ([round(255 * value, 3) for value in model.pretrained_cfg[key]] for key in ("mean", "std"))
    return _YAML.format(depth=depth, weights=weights, mean=mean, std=std)


_YAML = """\
# Faster R-CNN C4 on PASCAL VOC 2007 + 2012. "paper": He et al. (2020), Momentum contrast for unsupervised visual
# representation learning, section 4.2.1 and appendix; "published": numbers of its authors' public configuration.
# What is not here is Detectron2's default.
MODEL:
  META_ARCHITECTURE: GeneralizedRCNN
  WEIGHTS: {weights}
  MASK_ON: false
  PIXEL_MEAN: {mean}  # of this backbone's pretraining, times 255, in the order of INPUT.FORMAT
  PIXEL_STD: {std}
  BACKBONE:
    NAME: build_resnet_backbone
    FREEZE_AT: 0  # paper: all layers are trained
  RESNETS:
    DEPTH: {depth}
    OUT_FEATURES: [res4]  # C4: res5 is the head of every region
    NORM: SyncBN  # paper: batch normalisation is trained, with the statistics of all GPUs; BN on a single one
    STRIDE_IN_1X1: false  # where these networks have their strides: in the 3x3 convolutions
  RPN:
    PRE_NMS_TOPK_TEST: 6000  # published
    POST_NMS_TOPK_TEST: 1000  # published
  ROI_HEADS:
    NAME: Res5ROIHeads  # train.py adds the paper's batch normalisation behind res5
    NUM_CLASSES: 20
INPUT:
  FORMAT: RGB
  MIN_SIZE_TRAIN: [480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800]  # paper: 480 to 800
  MIN_SIZE_TEST: 800  # paper
DATASETS:
  TRAIN: [voc_2007_trainval, voc_2012_trainval]
  TEST: [voc_2007_test]
SOLVER:
  IMS_PER_BATCH: 16  # published
  BASE_LR: 0.02  # published
  STEPS: [18000, 22000]  # published; x 0.1 at each
  MAX_ITER: 24000  # paper
  WARMUP_ITERS: 100  # published
TEST:
  PRECISE_BN:
    ENABLED: true  # published: statistics are measured anew before a test
OUTPUT_DIR: output
"""

_README = """\
# {name}: detection on PASCAL VOC

1. Install Detectron2 (https://github.com/facebookresearch/detectron2) on a machine with GPUs.
2. Lay out the data as it asks: `datasets/VOC2007` and `datasets/VOC2012`, each with `Annotations`, `ImageSets` and
   `JPEGImages`; elsewhere than in `./datasets`, set `DETECTRON2_DATASETS`.
3. In this folder:

       {command}

   On a single GPU add `MODEL.RESNETS.NORM BN`. With smaller batches divide the learning rate by the same number and
   multiply the iterations with it: `SOLVER.IMS_PER_BATCH 8 SOLVER.BASE_LR 0.01 SOLVER.MAX_ITER 48000 SOLVER.STEPS
   "(36000, 44000)" SOLVER.WARMUP_ITERS 200`.

It ends with AP, AP50 and AP75 on VOC 2007 test. The authors of the recipe report standard deviations of .2, .2 and .4
for AP50, AP and AP75, and average over 5 runs (`SEED N OUTPUT_DIR output_N`).
"""
