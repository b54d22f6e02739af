"""Heads, necks and blocks by themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from mtl_heads import HEADS, NECKS
from mtl_heads.blocks import PooledBatchNorm2d
from mtl_heads.encoder import Pyramid

FIXTURE = Path(__file__).parents[1] / "fixtures" / "mtl_modules.safetensors"
PYRAMID = Pyramid((8, 12, 16), (4, 8, 16))


def features(batch: int = 2) -> list[torch.Tensor]:
    torch.manual_seed(0)
    sizes = [(13, 11), (7, 6), (4, 3)]
    return [torch.randn(batch, c, *size) for c, size in zip(PYRAMID.channels, sizes, strict=True)]


def test_deeplab_equals_the_published_module():
    data = load_file(FIXTURE)
    head = HEADS.get("deeplab")(Pyramid((24,), (8,)), 5).eval()
    prefix = "deeplab_head/weights/"
    weights = {key.removeprefix(prefix): value for key, value in data.items() if key.startswith(prefix)}
    head.layers.load_state_dict(weights)
    torch.testing.assert_close(
        head([data["deeplab_head/in/x"]]), data["deeplab_head/out/y"], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(("stride", "rates"), [(8, (12, 24, 36)), (16, (6, 12, 18)), (32, (3, 6, 9))])
def test_rates_of_deeplab_keep_their_field_of_view(stride, rates):
    layers = HEADS.get("deeplab")(Pyramid((4, 8), (stride // 2, stride)), 1, width=4).layers.modules()
    wide = [layer for layer in layers if getattr(layer, "kernel_size", None) == (3, 3) and layer.dilation != (1, 1)]
    assert [layer.dilation for layer in wide] == [(rate, rate) for rate in rates]
    assert all(layer.padding == layer.dilation for layer in wide)


def test_hrnet_reads_all_scales_at_the_finest():
    head = HEADS.get("hrnet")(PYRAMID, 3).eval()
    maps = features()
    finest = maps[0].shape[-2:]
    joined = torch.cat([F.interpolate(m, finest, mode="bilinear", align_corners=False) for m in maps], 1)
    assert joined.shape[1] == head.last_layer[0].in_channels == head.last_layer[0].out_channels == 36
    torch.testing.assert_close(head(maps), head.last_layer(joined))


@pytest.mark.parametrize("name", HEADS.names())
@pytest.mark.parametrize("main", [0, -1])
def test_heads_give_maps_at_the_size_they_read(name, main):
    pyramid = PYRAMID._replace(main=main)
    head = HEADS.get(name)(pyramid, 3)
    read = 0 if name in ("hrnet", "panoptic_fpn", "unet") else main
    finer = pyramid.strides[main] if name == "taskonomy" else 1
    height, width = features()[read].shape[-2:]
    assert head(features())[:, 0].shape == (2, finer * height, finer * width)
    assert head(features()).shape[1] == 3


def test_linear_head_of_an_image_task_is_linear_in_the_pooled_features():
    head = HEADS.get("linear")(PYRAMID, 4, image=True).eval()
    pooled = features()[-1].flatten(2).mean(2)
    torch.testing.assert_close(head(features()), pooled @ head.classifier.weight.T + head.classifier.bias)


def test_fpn_against_the_definition():
    neck = NECKS.get("fpn")(PYRAMID, channels=6)
    maps = features()
    inner = [block[0](m) for block, m in zip(neck.fpn.inner_blocks, maps, strict=True)]
    top = inner[2]
    middle = inner[1] + F.interpolate(top, inner[1].shape[-2:], mode="nearest")
    bottom = inner[0] + F.interpolate(middle, inner[0].shape[-2:], mode="nearest")
    expected = [block[0](m) for block, m in zip(neck.fpn.layer_blocks, (bottom, middle, top), strict=True)]
    for ours, theirs in zip(neck(maps), expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert neck.pyramid.channels == (6, 6, 6) and neck.pyramid.main == 0


def test_pooled_batch_norm_is_batch_norm_but_for_single_values():
    ours, theirs = PooledBatchNorm2d(3), torch.nn.BatchNorm2d(3)
    batch = torch.randn(4, 3, 1, 1)
    torch.testing.assert_close(ours(batch), theirs(batch))
    state = {key: value.clone() for key, value in ours.state_dict().items()}
    assert ours(batch[:1]).isfinite().all()
    assert all(torch.equal(value, state[key]) for key, value in ours.state_dict().items())
    with pytest.raises(ValueError, match="more than 1 value"):
        theirs(batch[:1])
