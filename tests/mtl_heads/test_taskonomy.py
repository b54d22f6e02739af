"""Taskonomy's decoder."""

from __future__ import annotations

import pytest
import torch

from harness.errors import UserError
from mtl_heads import HEADS, build_model
from mtl_heads.encoder import Pyramid

CONVOLUTIONS = torch.nn.Conv2d | torch.nn.ConvTranspose2d


def head(stride: int = 16, **options):
    return HEADS.get("taskonomy")(Pyramid((20,), (stride,)), 3, **{"width": 64, **options})


def test_fifteen_layers():
    layers = [part for part in head().modules() if isinstance(part, CONVOLUTIONS)]
    kinds = ["T" if isinstance(layer, torch.nn.ConvTranspose2d) else "C" for layer in layers]
    assert "".join(kinds) == "CCCCC" + "CT" * 4 + "C" + "C"
    norms = sum(isinstance(part, torch.nn.BatchNorm2d) for part in head().modules())
    assert norms == 14 and layers[-1].bias is not None


@pytest.mark.parametrize(("stride", "finer"), [(32, 16), (16, 16), (8, 8), (4, 4), (1, 1), (14, 16)])
def test_it_goes_back_to_the_size_of_the_image(stride, finer):
    assert head(stride)([torch.randn(1, 20, 2, 3)]).shape == (1, 3, 2 * finer, 3 * finer)


def test_parameters_of_the_published_networks():
    """Table 4.2: five single-task networks have 224 M, the shared encoder with five heads 130 M."""
    dense = {"semseg": 17, "depth": 1, "edge": 1, "keypoints": 1}
    with torch.device("meta"):
        model = build_model("baseline", "resnet50_taskonomy", dense, image={"scene": 63}, head="taskonomy")
    encoder = sum(p.numel() for p in model.encoder.parameters())
    shared = sum(p.numel() for p in model.parameters())
    assert round(shared / 1e6) == 130 and round((shared + 4 * encoder) / 1e6) == 224


def test_in_a_network_at_an_odd_size():
    torch.manual_seed(0)
    model = build_model(
        "baseline",
        "resnet50_taskonomy",
        {"depth": 1, "edge": 1},
        head="taskonomy",
        head_options={"width": 64},
        backbone_options={"channels": [8, 16, 32, 64], "layers": [1, 1, 1, 1]},
    )
    output = model(torch.randn(2, 3, 65, 47))
    assert output.predictions["depth"].shape == (2, 1, 65, 47)
    sum(value.square().mean() for value in output.predictions.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_refusals():
    for width in (0, 32, 100):
        with pytest.raises(UserError, match="multiple of 64"):
            head(width=width)
    with pytest.raises(UserError, match="image tasks take head 'linear'"):
        HEADS.get("taskonomy")(Pyramid((20,), (16,)), 3, image=True)
