"""Wrong choices are refused in one line that says what to do."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from harness.errors import UserError
from mtl_heads import build_model

DENSE = {"semseg": 5, "depth": 1}


class FixedSize(nn.Module):
    """A backbone that takes 32x32 only."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=4, padding=1)

    def forward(self, images):
        if tuple(images.shape[-2:]) != (32, 32):
            raise ValueError("32x32, please")
        return [self.conv(images)]


def resnet():
    return timm.create_model("resnet10t", features_only=True)


CASES = {
    "architecture": (lambda: build_model("basline", "resnet10t", DENSE), "did you mean 'baseline'"),
    "architecture nearly right": (lambda: build_model("mtinet", "resnet10t", DENSE), "did you mean 'mti_net'"),
    "option": (lambda: build_model("baseline", "resnet10t", DENSE, heat="fcn"), "no option 'heat' .*'head'"),
    "head": (lambda: build_model("baseline", "resnet10t", DENSE, head="deeplap"), "did you mean 'deeplab'"),
    "head option": (
        lambda: build_model("baseline", "resnet10t", DENSE, head="psp", head_options={"widht": 3}),
        "head 'psp' has no option 'widht' .*'width'",
    ),
    "head value": (
        lambda: build_model("baseline", "resnet10t", DENSE, head_options={"dropout": 3.0}),
        "dropout 3.0",
    ),
    "neck": (lambda: build_model("baseline", "resnet10t", DENSE, neck="fnp"), "did you mean 'fpn'"),
    "backbone": (
        lambda: build_model("baseline", "resnet81", DENSE),
        "timm has no backbone 'resnet81' .*resnet",
    ),
    "backbone type": (lambda: build_model("baseline", 3, DENSE), "give a timm name or a module"),
    "backbone option": (
        lambda: build_model("baseline", "resnet10t", DENSE, backbone_options={"width_of": 2}),
        "width_of",
    ),
    "options of a module": (
        lambda: build_model("baseline", resnet(), DENSE, backbone_options={"in_chans": 1}),
        "no effect",
    ),
    "classifier": (
        lambda: build_model("baseline", timm.create_model("resnet10t"), DENSE),
        "features_only=True",
    ),
    "no tasks": (lambda: build_model("baseline", "resnet10t", {}), "no task"),
    "two sets": (
        lambda: build_model("baseline", "resnet10t", DENSE, auxiliary={"depth": 1}),
        "'depth' is given as dense and as auxiliary",
    ),
    "two sets for a decoder": (
        lambda: build_model("mti_net", "resnet10t", DENSE, auxiliary={"normals": 3, "semseg": 5}),
        "'semseg' is given as dense and as auxiliary",
    ),
    "dense and image": (
        lambda: build_model("baseline", "resnet10t", DENSE, image={"semseg": 1}),
        "'semseg' is given as dense and as image",
    ),
    "channels": (lambda: build_model("baseline", "resnet10t", {"depth": 0}), "positive integer"),
    "task name": (lambda: build_model("baseline", "resnet10t", {"a.b": 1}), "name"),
    "several tasks": (lambda: build_model("single_task", "resnet10t", DENSE), "exactly one task, not 2"),
    "stride": (lambda: build_model("baseline", "resnet10t", DENSE, output_stride=12), "output_stride is 12"),
    "no dilation": (
        lambda: build_model("baseline", "swin_tiny_patch4_window7_224", DENSE, output_stride=8),
        "stride 32 and cannot be dilated to 8",
    ),
    "module stride": (
        lambda: build_model("baseline", resnet(), DENSE, output_stride=8),
        "stride 32 and cannot be dilated to 8",
    ),
    "scales for hrnet": (
        lambda: build_model("baseline", "vit_tiny_patch16_224", DENSE, head="hrnet"),
        "at least two strides",
    ),
    "scales for fpn": (
        lambda: build_model("baseline", "vit_tiny_patch16_224", DENSE, neck="fpn"),
        "at least two strides",
    ),
    "scales for mti_net": (
        lambda: build_model("mti_net", "vit_tiny_patch16_224", DENSE),
        "4 strides, backbone 'vit_tiny_patch16_224' gives 1 .16.: .*neck",
    ),
    "scales for jtrl": (
        lambda: build_model("jtrl", "resnet10t", DENSE, backbone_options={"out_indices": (4,)}),
        "2 strides, backbone 'resnet10t' gives 1",
    ),
    "three tasks for jtrl": (
        lambda: build_model("jtrl", "resnet10t", {**DENSE, "normals": 3}),
        "exactly two tasks .*not 3 .semseg, depth, normals.",
    ),
    "stages for cross_stitch": (
        lambda: build_model("cross_stitch", FixedSize(), DENSE, head="fcn"),
        "FixedSize cannot be cut into stages",
    ),
    "blocks for mtan": (
        lambda: build_model("mtan", "swin_tiny_patch4_window7_224", DENSE),
        "mtan reaches inside the stages of a residual network, and backbone 'swin_tiny_patch4_window7_224'",
    ),
    "fixed size": (
        lambda: build_model("baseline", FixedSize(), DENSE, head="fcn")(torch.zeros(1, 3, 40, 40)),
        "takes only images of 32x32, not 40x40",
    ),
    "unknown task": (
        lambda: build_model("baseline", "resnet10t", DENSE, head="fcn")(torch.zeros(1, 3, 32, 32), ["dept"]),
        "did you mean 'depth'",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_refused(case):
    make, message = CASES[case]
    with pytest.raises(UserError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
