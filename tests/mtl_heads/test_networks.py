"""The papers' small networks: the published shapes and counts, and usable wherever a timm backbone is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision

from harness.errors import UserError
from mtl_heads import build_model
from mtl_heads.backbones import create_backbone
from mtl_heads.stages import stages_of

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "mtl_heads" / "networks" / "__init__.py"
NAMES = ["lenet", "vgg16_thin32", "vgg16_thin64", "celeba_cnn9", "resnet18_cifar", "resnet50_taskonomy"]
LIGHT = {
    "resnet18_cifar": {"channels": [8, 16, 32, 64], "layers": [1, 1, 1, 1]},
    "resnet50_taskonomy": {"channels": [8, 16, 32, 64], "layers": [1, 1, 1, 1]},
    "celeba_cnn9": {"width": 8},
}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def light(name: str, **options):
    return create_backbone(name, options={**LIGHT.get(name, {}), **options})


def count(module) -> int:
    return sum(value.numel() for value in module.parameters())


def test_lenet_is_the_usual_one():
    network = timm.create_model("lenet", in_chans=1, num_classes=10).eval()
    shared = 10 * 25 + 10 + 20 * 10 * 25 + 20 + 320 * 50 + 50
    assert count(network) == shared + 50 * 10 + 10
    images = torch.randn(3, 1, 28, 28)
    state = network.state_dict()
    maps = F.relu(F.max_pool2d(F.conv2d(images, state["conv1.0.weight"], state["conv1.0.bias"]), 2))
    maps = F.relu(F.max_pool2d(F.conv2d(maps, state["conv2.0.weight"], state["conv2.0.bias"]), 2))
    units = F.relu(maps.flatten(1) @ state["fc1.1.weight"].flatten(1).T + state["fc1.1.bias"])
    expected = units @ state["head.weight"].T + state["head.bias"]
    torch.testing.assert_close(network(images), expected)


def test_vgg_that_is_not_thin_is_vgg16():
    with torch.device("meta"):
        theirs = torchvision.models.vgg16(weights=None).features.eval()
        ours = timm.create_model("vgg16_thin32", omega=2048, batch_norm=False, dense=True, num_classes=0).eval()
    weights = {key: 0.05 * torch.randn(value.shape) for key, value in theirs.state_dict().items()}
    theirs.load_state_dict(weights, assign=True)
    keys = [key for key in ours.state_dict() if not key.startswith("head")]
    ours.load_state_dict(dict(zip(keys, weights.values(), strict=True)), assign=True)
    images = torch.randn(1, 3, 32, 64)
    torch.testing.assert_close(ours.forward_features(images), theirs(images))
    with torch.device("meta"):  # the section gives 134.41 M for VGG-16 with 40 attributes
        whole = timm.create_model("vgg16_thin32", omega=2048, batch_norm=False)
    assert count(whole) == count(theirs) + (512 * 49 + 1) * 4096 + 4097 * 4096 + 4097 * 40 == 134_424_424


@pytest.mark.parametrize("omega", [32, 64])
def test_thin_vgg_widths(omega):
    features = create_backbone(f"vgg16_thin{omega}").feature_info.channels()
    assert features == [min(omega, width) for width in (64, 128, 256, 512, 512)] + [2 * omega] * 2


def test_celeba_network_has_nine_layers():
    network = timm.create_model("celeba_cnn9", num_classes=0)
    layers = [part for part in network.modules() if isinstance(part, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(layers) == 9
    assert network.train()(torch.randn(1, 3, 64, 64)).isfinite().all()  # a batch of one has no variance


def test_cifar_stem_keeps_the_size():
    network = timm.create_model("resnet18_cifar", num_classes=10)
    assert count(network) == 11_173_962  # the well-known number for CIFAR-10
    features = light("resnet18_cifar")
    assert [f.shape[-1] for f in features(torch.zeros(1, 3, 32, 32))] == [32, 32, 16, 8, 4]
    assert features.feature_info.reduction() == [1, 1, 2, 4, 8]
    assert light("resnet18_cifar", stem_padding=2)(torch.zeros(1, 3, 32, 32))[0].shape[-1] == 34
    assert create_backbone("resnet18_cifar", 8, LIGHT["resnet18_cifar"]).feature_info.reduction()[-1] == 8


def test_taskonomy_encoder_is_resnet_without_the_last_stride():
    ours = light("resnet50_taskonomy").eval()
    theirs = create_backbone("resnet50", options=LIGHT["resnet50_taskonomy"]).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(1, 3, 64, 64)
    mine, plain = ours(images), theirs(images)
    assert [f.shape[-1] for f in mine] == [32, 16, 8, 4, 4]
    for a, b in zip(mine[:4], plain[:4], strict=True):
        torch.testing.assert_close(a, b)
    assert all(part.dilation == (1, 1) for part in ours.modules() if isinstance(part, torch.nn.Conv2d))


@pytest.mark.parametrize("name", NAMES)
def test_any_size_gives_the_declared_pyramid(name):
    backbone = light(name).eval()
    for size in ((64, 64), (65, 47), (20, 20)):
        features = backbone(torch.randn(2, 3, *size))
        assert [f.shape[1] for f in features] == backbone.feature_info.channels()
        for feature, stride in zip(features, backbone.feature_info.reduction(), strict=True):
            if feature.shape[-1] > 1 and name != "lenet":  # whose convolutions are not padded
                assert all(
                    side // stride <= cells <= -(-side // stride)
                    for side, cells in zip(size, feature.shape[2:], strict=True)
                )


@pytest.mark.parametrize("name", NAMES)
def test_whole_networks_and_pyramids_agree(name):
    whole = timm.create_model(name, num_classes=0, **LIGHT.get(name, {})).eval()
    pyramid = light(name).eval()
    state = whole.state_dict()
    pyramid.load_state_dict({key: state[key] for key in pyramid.state_dict()})
    images = torch.randn(2, 3, 32, 32)
    pooled = whole(images)
    assert pooled.shape == (2, whole.num_features)
    torch.testing.assert_close(pooled, pyramid(images)[-1].mean((2, 3)))


@pytest.mark.parametrize("name", NAMES)
def test_weights_travel_from_a_whole_network_to_a_multi_task_one(name, tmp_path):
    from pretrain import load_backbone
    from pretrain.checkpoints import save_backbone

    whole = timm.create_model(name, num_classes=0, **LIGHT.get(name, {}))
    path = tmp_path / "backbone.safetensors"
    options = LIGHT.get(name, {})
    save_backbone(path, whole, name, (0.5,) * 3, (0.5,) * 3, (3, 32, 32), options=options)
    pyramid = load_backbone(path, features_only=True)
    model = build_model("baseline", pyramid, {}, image={"left": 10, "right": 10}).eval()
    assert torch.equal(next(model.backbone.parameters()), next(whole.parameters()))
    assert model(torch.randn(1, 3, 32, 32)).predictions["left"].shape == (1, 10)


@pytest.mark.parametrize("name", NAMES)
def test_image_tasks_train_and_the_network_can_be_cut(name):
    model = build_model("baseline", light(name), {}, image={"left": 10, "right": 10})
    images = torch.randn(4, 3, 36, 36)
    predictions = model(images).predictions
    (predictions["left"].square().mean() + predictions["right"].square().mean()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    stages, model = stages_of(model.encoder), model.eval()
    for ours, theirs in zip(
        stages.pyramid(stages(images), (36, 36)), model.encode(images), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_dense_tasks_leave_the_fully_connected_layers_out():
    for name, option in (("lenet", {"hidden": 0}), ("vgg16_thin32", {"dense": True}), ("celeba_cnn9", {"dense": True})):
        model = build_model("baseline", name, {"semseg": 3}, head="fcn", backbone_options=option).eval()
        assert max(model.encoder.pyramid.strides) <= 32
        assert model(torch.randn(1, 3, 40, 40)).predictions["semseg"].shape == (1, 3, 40, 40)


def test_strides_that_cannot_be_had_are_refused():
    for name in ("lenet", "resnet18_cifar", "resnet50_taskonomy"):
        with pytest.raises(UserError, match="cannot be dilated to 32"):
            build_model("baseline", name, {"semseg": 3}, output_stride=32, backbone_options=LIGHT.get(name))


def test_pretraining_takes_them_as_a_plugin():
    """``pretrain`` may not import ``mtl_heads``: the user names the file."""
    code = (
        "import timm, sys; from harness.registry import load_plugin; assert not timm.is_model('lenet'); "
        f"load_plugin({str(PLUGIN)!r}); from pretrain.backbones import create_backbone; import torch; "
        "assert create_backbone('lenet', {}, [28])(torch.zeros(2, 3, 28, 28)).shape == (2, 50)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
