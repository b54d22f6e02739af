"""Simple feature pyramid of plain transformers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from harness.errors import UserError
from mtl_heads import NECKS, build_model
from mtl_heads.encoder import Encoder, Pyramid

VIT = {"embed_dim": 32, "depth": 3, "num_heads": 2}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def vit(patch: int = 16, **options) -> Encoder:
    return Encoder(
        "vit_tiny_patch16_224",
        neck="simple_pyramid",
        neck_options={"channels": 8, **options},
        backbone_options={**VIT, "patch_size": patch, "img_size": 8 * patch},
    ).eval()


def test_against_the_definition():
    neck = NECKS.get("simple_pyramid")(Pyramid((12, 24), (16, 16)), channels=6)
    for value in neck.parameters():
        torch.nn.init.normal_(value)
    features = [torch.randn(2, 12, 3, 5), torch.randn(2, 24, 3, 5)]

    def norm(maps, layer):
        return F.layer_norm(maps.movedim(1, -1), (maps.shape[1],), layer.weight, layer.bias, 1e-6).movedim(-1, 1)

    def project(maps, layers):
        first, one, second, two = layers
        maps = norm(F.conv2d(maps, first.weight), one)
        return norm(F.conv2d(maps, second.weight, padding=1), two)

    def double(maps, layer):
        return F.conv_transpose2d(maps, layer.weight, layer.bias, stride=2)

    last, (four, eight, sixteen, half) = features[-1], neck.scales
    expected = [
        project(double(F.gelu(norm(double(last, four[0]), four[1])), four[3]), four[4:]),
        project(double(last, eight[0]), eight[1:]),
        project(last, sixteen),
        project(F.max_pool2d(last, 2, ceil_mode=True), half[1:]),
    ]
    for ours, theirs in zip(neck(features), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert neck.pyramid[:3] == ((6,) * 4, (4, 8, 16, 32), 0)


@pytest.mark.parametrize(
    ("patch", "strides"), [(16, (4, 8, 16, 32)), (8, (4, 8, 16, 32)), (32, (4, 8, 16, 32)), (14, (4, 7, 14, 28))]
)
def test_scales_of_other_patches(patch, strides):
    encoder = vit(patch)
    assert encoder.pyramid.strides == strides
    side = 8 * patch
    for feature, stride in zip(encoder(torch.randn(1, 3, side, side)), encoder.neck.exact_strides, strict=True):
        assert feature.shape == (1, 8, side / stride, side / stride)


def test_cells_beyond_the_image_are_cropped():
    encoder = vit()
    features = encoder(torch.randn(1, 3, 51, 67))
    assert [tuple(f.shape[-2:]) for f in features] == [(13, 17), (7, 9), (4, 5), (2, 3)]


def test_chosen_scales_and_gradients():
    encoder = vit(strides=(8, 16))
    features = encoder(torch.randn(1, 3, 32, 32))
    assert [f.shape[-1] for f in features] == [4, 2]
    sum(f.square().sum() for f in features).backward()
    assert all(p.grad is not None for p in encoder.neck.parameters())


@pytest.mark.parametrize("name", ["baseline", "unet"])
def test_architectures_get_their_scales(name):
    options = {"head": "hrnet"} if name == "baseline" else {}
    model = build_model(
        name,
        "vit_tiny_patch16_224",
        {"semseg": 3},
        image={"scene": 2},
        neck="simple_pyramid",
        neck_options={"channels": 8},
        backbone_options=VIT,
        **options,
    ).eval()
    images = torch.randn(2, 3, 45, 33)
    output = model(images)
    assert output.predictions["semseg"].shape == (2, 3, 45, 33) and output.predictions["scene"].shape == (2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(images).predictions["semseg"].isfinite().all()


def test_compiled_in_one_graph():
    neck = NECKS.get("simple_pyramid")(Pyramid((24,), (16,)), channels=6)
    features = [torch.randn(2, 24, 3, 5)]
    compiled = torch.compile(lambda features: neck.crop(neck(features), (45, 70)), backend="eager", fullgraph=True)
    for ours, theirs in zip(compiled(features), neck.crop(neck(features), (45, 70)), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_refusals():
    with pytest.raises(UserError, match="for features of one stride, .* has 4, 8, 16, 32: choose neck 'fpn'"):
        Encoder("resnet10t", neck="simple_pyramid")
    for wrong in ({"channels": 0}, {"strides": ()}, {"strides": (8, 4)}, {"strides": (4, 4)}, {"strides": (0, 4)}):
        with pytest.raises(UserError, match="out of range"):
            NECKS.get("simple_pyramid")(Pyramid((8,), (16,)), **wrong)
    with pytest.raises(UserError, match="simple_pyramid"):
        Encoder("vit_tiny_patch16_224", neck="fpn", backbone_options=VIT)
