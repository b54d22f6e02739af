"""Residual backbones cut into their blocks compute what they compute as a whole; others are refused."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import nn
from torchvision.models._utils import IntermediateLayerGetter

from harness.errors import UserError
from mtl_heads.encoder import Encoder
from mtl_heads.residual import ResidualStages, blocks_of, only_stages

#: timm name, blocks of each stage
FAMILIES = [
    ("resnet10t", [1, 1, 1, 1]),
    ("seresnet18", [2, 2, 2, 2]),
    ("legacy_seresnet18", [2, 2, 2, 2]),
    ("resnetv2_18", [2, 2, 2, 2]),
    ("regnetx_002", [1, 1, 4, 7]),
    ("resnet18_cifar", [2, 2, 2, 2]),
]
SLOW = ["resnetblur18", "regnety_002", "skresnet18", "resnext50_32x4d", "ecaresnet26t", "legacy_seresnext26_32x4d",
        "resnest14d", "res2net50_26w_4s", "resnetv2_50x1_bit", "resnetv2_50d_gn", "regnetz_005", "resnetaa34d",
        "wide_resnet50_2", "nf_resnet26", "resnet50_taskonomy"]  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@torch.no_grad()
def check(encoder: Encoder) -> ResidualStages:
    encoder = encoder.eval()
    stages = ResidualStages(encoder, "a test")
    images = torch.randn(1, 3, 65, 47)
    value, early = stages.start(images)
    ends: list[torch.Tensor] = []
    for i in range(stages.count):
        outputs = stages.run(i, value)
        assert len(outputs) == stages.sizes[i]
        value = outputs[-1]
        ends.append(value)
    for ours, whole in zip(stages.pyramid(early, ends, (65, 47)), encoder(images), strict=True):
        assert torch.equal(ours, whole)
    assert stages.channels == [end.shape[1] for end in ends]
    return stages


@pytest.mark.parametrize(("name", "sizes"), FAMILIES, ids=[name for name, _ in FAMILIES])
def test_families(name, sizes):
    assert check(Encoder(name)).sizes == sizes


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_more_families(name):
    check(Encoder(name))


def test_levels_and_strides():
    stages = check(Encoder("resnet10t", output_stride=8, neck="fpn", neck_options={"channels": 8}))
    assert stages.strides == [4, 8, 8, 8] and stages.levels == [0, 1, 2, 3]
    stages = check(Encoder("resnet10t", backbone_options={"out_indices": (0, 2)}))
    assert stages.count == 2 and stages.levels == [None, 1]
    stages = check(Encoder("resnet18_cifar"))
    assert stages.strides == [1, 2, 4, 8] and stages.levels == [2, 3]


def test_torchvisions_networks():
    layers = {f"layer{i}": str(i) for i in (1, 2, 3, 4)}
    body = IntermediateLayerGetter(torchvision.models.resnet18(weights=None), layers)
    assert check(Encoder(body)).sizes == [2, 2, 2, 2]


def test_blocks_of_other_things():
    assert blocks_of(nn.ReLU()) == [] and blocks_of(nn.Sequential(nn.Conv2d(1, 1, 1))) == []


def test_only_stages_keeps_what_comes_before_and_leaves_the_given_one():
    body = timm.create_model("resnet10t", features_only=True)
    short = only_stages(body, [1, 3], "a test")
    assert list(short)[-1] == "layer3" and list(body)[-1] == "layer4" and short["layer2"] is body["layer2"]
    assert short.feature_info.channels() == [64, 256] and short.feature_info.reduction() == [4, 16]
    assert check(Encoder(short)).levels == [0, 2]
    assert len(body(torch.randn(2, 3, 64, 64))) == 5


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mobilenetv3_small_050", "does not run one stage after another"),
        ("test_efficientnet", "does not run one stage after another"),
        ("test_vit", "does not run one stage after another"),
        ("convnext_atto", "has stages of other blocks"),
        ("test_convnext2", "has stages of other blocks"),
        ("test_byobnet", "has stages of other blocks"),
    ],
)
def test_others_are_refused_with_the_reason(name, reason):
    with pytest.raises(UserError, match=f"a test reaches inside .*{reason}: choose a ResNet") as error:
        ResidualStages(Encoder(name), "a test")
    assert "\n" not in str(error.value)
