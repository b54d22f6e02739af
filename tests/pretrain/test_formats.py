"""Every published layout: recognised by its keys, loaded whole, refused when it does not fit."""

from __future__ import annotations

import json
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import nn

from pretrain import CheckpointError, inspect_checkpoint, load_backbone
from pretrain.formats.base import IMAGENET
from pretrain.formats.swav import CONVENTION as SWAV_INPUT

LAYOUTS = Path(__file__).parent.parent / "fixtures" / "checkpoint_layouts"
OPTIMIZER = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.03, "params": [0]}]}
NUMBERS = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}


def filler(shape, dtype="float32"):
    """A tensor of a shape that takes the room of one number, in memory and in a file."""
    return torch.full((1,), 7, dtype=getattr(torch, dtype)).expand(shape) if shape else torch.tensor(7)


def same_key(key: str) -> str:
    return key


def numbered(key: str) -> str:
    first, _, rest = key.partition(".")
    return f"{NUMBERS[first]}.{rest}"


def training(**extra):
    """The top level of MoCo and its relatives."""
    return lambda state: {"epoch": 200, "arch": "resnet50", "state_dict": state, "optimizer": OPTIMIZER, **extra}


def dino(state):
    """DINO's top level; the student has ``module.`` and other weights."""
    student = {"module." + key.removeprefix("module."): filler(value.shape) for key, value in state.items()}
    return {"student": student, "teacher": state, "optimizer": OPTIMIZER, "epoch": 300, "fp16_scaler": None,
            "args": Namespace(arch="vit_small", patch_size=16, lr=0.0005), "dino_loss": {"center": torch.zeros(1, 8)}}


def lightning(state):
    return {"epoch": 400, "global_step": 1000, "pytorch-lightning_version": "1.2.7", "state_dict": state, "loops": {},
            "callbacks": {}, "optimizer_states": [OPTIMIZER], "lr_schedulers": [], "hyper_parameters": {"lr": 0.3}}


# layout: (format, prefix in the file, name of a key, how it is wrapped, dtype, input)
CASES = {
    "revisiting_contrastive_ssl": ("Revisiting-Contrastive-SSL", "module.encoder_q.", same_key, training(),
                                   "float32", IMAGENET),
    "moco_v1": ("MoCo v1", "module.encoder_q.", same_key, training(), "float32", IMAGENET),
    "moco_v2": ("MoCo v2", "module.encoder_q.", same_key, training(), "float32", IMAGENET),
    "moco_v3_resnet50": ("MoCo v3", "module.base_encoder.", same_key, training(scaler={"scale": 65536.0}), "float32",
                         IMAGENET),
    "swav_released": ("SwAV", "module.", same_key, same_key, "float16", SWAV_INPUT),
    "swav_training": ("SwAV training", "module.", same_key, lambda state: {
        "epoch": 5, "state_dict": state, "optimizer": OPTIMIZER, "amp": {"loss_scaler0": {"loss_scale": 2.0}}},
        "float32", SWAV_INPUT),
    "densecl_released": ("DenseCL", "", same_key, lambda state: {"state_dict": state, "author": "DenseCL"}, "float32",
                         IMAGENET),
    "dino_resnet50_backbone": ("state dict", "", same_key, same_key, "float32", IMAGENET),
    "dino_resnet50_full": ("DINO training", "module.backbone.", same_key, dino, "float32", IMAGENET),
    "dino_vits16_backbone": ("DINO backbone", "", same_key, same_key, "float32", IMAGENET),
    "dino_vits16_full": ("DINO training", "backbone.", same_key, dino, "float32", IMAGENET),
    "lightning_backbone": ("solo-learn", "backbone.", same_key, lightning, "float32", IMAGENET),
    "lightly_sequential": ("lightly Sequential", "backbone.", numbered, same_key, "float32", IMAGENET),
    "torchvision_resnet50": ("state dict", "", same_key, same_key, "float32", IMAGENET),
}


def test_every_fixture_is_a_case():
    assert {path.stem for path in LAYOUTS.glob("*.json")} == set(CASES)


def randomised(model: nn.Module) -> nn.Module:
    """With batch statistics that matter and weights that half precision has, too."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("running_var"):
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
            elif name.endswith(("running_mean", "bn1.bias", "pos_embed", "cls_token")):
                value.copy_(0.1 * torch.randn(value.shape, generator=generator))
            if value.is_floating_point():
                value.copy_(value.half())
    return model.eval()


@pytest.fixture(scope="module")
def networks():
    """{name: (network, images, its features)}."""
    torch.manual_seed(0)
    made = {}
    for name, size in (("resnet50", 64), ("vit_small_patch16_224", 224)):
        model = randomised(timm.create_model(name, num_classes=0))
        images = torch.randn(1, 3, size, size)
        with torch.no_grad():
            made[name] = model, images, model(images)
    return made


def architecture_of(layout: str) -> str:
    return "vit_small_patch16_224" if "vits16" in layout else "resnet50"


def contents(layout: str, weights=None, change=None):
    """The state dict of a layout: the backbone's weights, all else filled; and the backbone's keys."""
    _, prefix, name, _, dtype, _ = CASES[layout]
    shapes = json.loads((LAYOUTS / f"{layout}.json").read_text())["state_dict"]
    state = OrderedDict((key, filler(shape, kind)) for key, (shape, kind) in shapes.items())
    keys = {}
    for key, value in (weights or {}).items():
        there = prefix + name(key)
        assert list(value.shape) == shapes[there][0], there
        state[there] = value.to(getattr(torch, dtype)) if value.is_floating_point() else value
        keys[there] = key
    if change:
        change(state)
    return state, keys


def write(layout: str, path: Path, state) -> Path:
    """As the source of the layout writes it; the first MoCo is older than torch's zip files."""
    torch.save(CASES[layout][3](state), path, _use_new_zipfile_serialization=layout != "moco_v1")
    return path


@pytest.fixture
def uninitialised(monkeypatch):
    """Networks are built with whatever is in memory: most of a test's time, and all of it comes from the file."""
    for name in ("kaiming_normal_", "kaiming_uniform_", "normal_", "uniform_", "trunc_normal_"):
        monkeypatch.setattr(nn.init, name, lambda tensor, *_, **__: tensor)
    monkeypatch.setattr("timm.models.vision_transformer.trunc_normal_", lambda tensor, *_, **__: tensor)


@pytest.mark.parametrize("layout", CASES)
def test_a_published_layout_loads(layout, networks, uninitialised, tmp_path):
    network, images, expected = networks[architecture_of(layout)]
    state, keys = contents(layout, network.state_dict())
    path = write(layout, tmp_path / "file.pth.tar", state)
    model = load_backbone(path).eval()
    path.unlink()  # the model does not need it any more, and ten of them fill a disk
    info = model.load_report
    assert (info.format, info.architecture, info.encoder_prefix) == (
        CASES[layout][0], architecture_of(layout), CASES[layout][1])
    assert len(info.matched) == len(keys) and not info.missing and not info.resized
    assert sorted(info.unexpected) == sorted(set(state) - set(keys))
    with torch.no_grad():
        torch.testing.assert_close(model(images), expected, rtol=0, atol=1e-5)
    assert next(model.parameters()).dtype == torch.float32
    assert {key: model.pretrained_cfg[key] for key in ("mean", "std")} == CASES[layout][5]


@pytest.mark.parametrize("layout", CASES)
def test_what_does_not_fit_is_refused_and_says_what(layout, tmp_path):
    path = tmp_path / "file.pth.tar"
    prefix, name = CASES[layout][1:3]
    architecture = architecture_of(layout)
    key = prefix + (name("layer3.1.conv2.weight") if architecture == "resnet50" else "blocks.3.attn.proj.weight")

    write(layout, path, contents(layout)[0])
    with pytest.raises(CheckpointError, match=f"does not fit 'resnet18'.*set the architecture to {architecture}"):
        load_backbone(path, "resnet18")
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 5])
    with pytest.raises(CheckpointError, match=r"file\.pth\.tar is damaged, cut off") as caught:
        load_backbone(path)
    assert "\n" not in str(caught.value)

    def rename(state):
        state[key.replace("weight", "weigth")] = state.pop(key)

    write(layout, path, contents(layout, change=rename)[0])
    with pytest.raises(CheckpointError, match="is not in it.*weigth.*which nothing takes") as caught:
        load_backbone(path)
    assert f"closest known format: '{CASES[layout][0]}'" in str(caught.value)

    def reshape(state):
        state[key] = filler((5, 7))

    write(layout, path, contents(layout, change=reshape)[0])
    with pytest.raises(CheckpointError, match=r"is \[5, 7\] there and \[\d+, \d+.*\] in the model") as caught:
        load_backbone(path)
    assert key in str(caught.value) and "\n" not in str(caught.value)


# Rows of the table without a fixture, with a smaller network.


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(1)
    model = randomised(timm.create_model("resnet18", num_classes=0))
    images = torch.randn(2, 3, 40, 48)
    with torch.no_grad():
        return model.state_dict(), images, model(images)


def loads_as(content, path: Path, small, expected_format: str, prefix: str):
    state, images, expected = small
    torch.save(content, path)
    info = inspect_checkpoint(path)
    assert (info.format, info.architecture, info.encoder_prefix) == (expected_format, "resnet18", prefix)
    model = load_backbone(path).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(images), expected, rtol=0, atol=1e-5)
    return model, info


def under(prefix: str, state, value=None):
    return {prefix + key: entry if value is None else filler(entry.shape) for key, entry in state.items()}


def test_densecl_training(small, tmp_path):
    state = small[0]
    content = {"meta": {"epoch": 200}, "optimizer": OPTIMIZER, "state_dict": {
        "queue": filler((128, 64)), "queue2": filler((128, 64)), "queue_ptr": filler((1,), "int64"),
        **under("encoder_q.0.", state), "encoder_q.1.mlp.0.weight": filler((4, 4)), "encoder_q.1.mlp2.0.weight":
        filler((4, 4, 1, 1)), **under("encoder_k.0.", state, 7), **under("backbone.", state)}}
    _, info = loads_as(content, tmp_path / "a.pth", small, "DenseCL training", "backbone.")
    assert {part.role for part in info.parts} == {
        "queue", "projection head", "the backbone again", "momentum encoder"}
    content["state_dict"] = {key: value for key, value in content["state_dict"].items() if "backbone" not in key}
    loads_as(content, tmp_path / "a.pth", small, "DenseCL training", "encoder_q.0.")


@pytest.mark.parametrize("name", ["backbone", "encoder"])
def test_solo_learn_old_and_new(name, small, tmp_path):
    state = small[0]
    content = lightning({**under(f"momentum_{name}.", state, 7), **under(f"{name}.", state),
                         "projector.0.weight": filler((8, 512)), "classifier.weight": torch.randn(10, 512),
                         "classifier.bias": torch.randn(10), "queue": filler((2, 256, 64))})
    loads_as(content, tmp_path / "solo.ckpt", small, "solo-learn", f"{name}.")
    whole = load_backbone(tmp_path / "solo.ckpt", keep_classifier=True)
    assert torch.equal(whole.fc.weight, content["state_dict"]["classifier.weight"])
    assert inspect_checkpoint(tmp_path / "solo.ckpt").classes == 10


def test_stems_for_small_images(tmp_path):
    """Against torchvision's ResNet with the stem that solo-learn puts into it."""
    torch.manual_seed(2)
    reference = torchvision.models.resnet18()
    reference.conv1 = nn.Conv2d(3, 64, 3, stride=1, padding=2, bias=False)
    reference.maxpool, reference.fc = nn.Identity(), nn.Identity()
    randomised(reference)
    content = lightning({**under("backbone.", reference.state_dict()), "classifier.weight": filler((10, 512)),
                         "classifier.bias": filler((10,))})
    torch.save(content, tmp_path / "cifar.ckpt")
    assert inspect_checkpoint(tmp_path / "cifar.ckpt").architecture == "cifar_resnet18"
    images = torch.randn(2, 3, 32, 32)
    model = load_backbone(tmp_path / "cifar.ckpt").eval()
    pyramid = load_backbone(tmp_path / "cifar.ckpt", features_only=True).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(images), reference(images), rtol=0, atol=1e-5)
        features = pyramid(images)
        torch.testing.assert_close(features[-1].mean((2, 3)), reference(images), rtol=0, atol=1e-5)
    assert pyramid.feature_info.reduction() == [1, 1, 2, 4, 8]
    assert model.pretrained_cfg["input_size"] == (3, 32, 32)
    assert model.pretrained_cfg["mean"] == IMAGENET["mean"]  # nobody says otherwise
    content["hyper_parameters"] = {"data": {"dataset": "cifar100"}}
    torch.save(content, tmp_path / "cifar.ckpt")
    assert inspect_checkpoint(tmp_path / "cifar.ckpt").input["mean"] == (0.5071, 0.4865, 0.4409)


@pytest.mark.parametrize("padding", [1, 2])
def test_the_stem_for_small_images_is_that_of_the_networks_for_tasks(padding):
    """Two packages that do not import each other have it; they stay equal."""
    import mtl_heads.networks.resnet_variants  # noqa: F401
    import pretrain.stems  # noqa: F401

    options = {"channels": [8, 8, 16, 16], "num_classes": 0, "stem_padding": padding}
    torch.manual_seed(3)
    one, other = (timm.create_model(name, **options).eval() for name in ("cifar_resnet18", "resnet18_cifar"))
    other.load_state_dict(one.state_dict())
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(one(images), other(images))
    assert one.feature_info == other.feature_info


def test_lightly_benchmark(small, tmp_path):
    state = small[0]
    content = lightning({**under("backbone.", state), "projection_head.layers.0.weight": filler((8, 512)),
                         **under("key_backbone.", state, 7), "online_classifier.weight": filler((10, 512)),
                         "online_classifier.bias": filler((10,))})
    loads_as(content, tmp_path / "lightly.ckpt", small, "lightly benchmark", "backbone.")


def test_another_module_of_lightning(small, tmp_path):
    loads_as(lightning({**under("model.", small[0]), "head.weight": filler((3, 512))}), tmp_path / "own.ckpt", small,
             "Lightning", "model.")


def test_sequential_in_lightning_with_data_parallel_inside(small, tmp_path):
    state = {f"backbone.module.{numbered(key)}": value for key, value in small[0].items()}
    loads_as(lightning({**state, "projection_head.layers.0.weight": filler((8, 512))}), tmp_path / "seq.ckpt", small,
             "lightly Sequential", "backbone.module.")


def test_virtex(small, tmp_path):
    content = {"model": {**under("visual.cnn.", small[0]), "textual.embedding.words.weight": filler((10, 8))},
               "optimizer": OPTIMIZER, "iteration": 500000}
    loads_as(content, tmp_path / "virtex.pth", small, "VirTex", "visual.cnn.")


@pytest.mark.parametrize("key", ["model", "state_dict"])
def test_supervised_training_of_timm_and_torchvision(key, small, tmp_path):
    content = {key: {**under("module.", small[0]), "module.fc.weight": torch.randn(10, 512),
                     "module.fc.bias": torch.randn(10)}, "epoch": 3, "args": Namespace(lr=0.1)}
    loads_as(content, tmp_path / "timm.pth", small, "wrapped state dict", "module.")
    whole = load_backbone(tmp_path / "timm.pth", keep_classifier=True)
    assert torch.equal(whole.fc.weight, content[key]["module.fc.weight"])


@pytest.mark.parametrize("plain, average", [("state_dict", "state_dict_ema"), ("model", "model_ema")])
def test_an_average_of_the_weights_goes_before_them(plain, average, small, tmp_path):
    """As timm does; torch's ``AveragedModel`` counts in the state dict."""
    content = {plain: {key: torch.zeros_like(value) for key, value in small[0].items()},
               average: {"n_averaged": torch.tensor(7), **under("module.", small[0])}, "epoch": 3}
    loads_as(content, tmp_path / "average.pth", small, "wrapped state dict", "module.")


@pytest.mark.parametrize("prefix", ["module._orig_mod.", "_orig_mod.module."])
def test_wrappers_in_any_order(prefix, small, tmp_path):
    state = {**under(f"{prefix}encoder_q.", small[0]), f"{prefix}encoder_q.fc.0.weight": filler((512, 512)),
             f"{prefix}encoder_q.fc.2.weight": filler((128, 512)), **under(f"{prefix}encoder_k.", small[0], 7)}
    loads_as(training(arch="resnet18")(state), tmp_path / "moco.pth", small, "MoCo v2", f"{prefix}encoder_q.")


def test_moco_v3_transformer(tmp_path):
    """Twelve heads, which no shape tells; and its own image size."""
    torch.manual_seed(3)
    network = randomised(timm.create_model("vit_small_patch16_224", num_classes=0, num_heads=12, img_size=64))
    state = {**under("module.base_encoder.", network.state_dict()), "module.base_encoder.head.0.weight":
             filler((4096, 384)), **under("module.momentum_encoder.", network.state_dict(), 7),
             "module.predictor.0.weight": filler((4096, 256))}
    torch.save(training(arch="vit_small", scaler={})(state), tmp_path / "v3.pth")
    info = inspect_checkpoint(tmp_path / "v3.pth")
    assert (info.format, info.architecture, info.missing) == ("MoCo v3", "vit_small_patch16_224", [])
    images = torch.randn(2, 3, 64, 64)
    model = load_backbone(tmp_path / "v3.pth").eval()
    with torch.no_grad():
        torch.testing.assert_close(model(images), network(images), rtol=0, atol=1e-5)
    assert model.pretrained_cfg["input_size"] == (3, 64, 64) and model.blocks[0].attn.num_heads == 12


def test_position_embeddings_are_resized(tmp_path):
    """Constant ones stay constant, the class token's stays its own; a pyramid takes them too."""
    torch.manual_seed(4)
    network = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    state = network.state_dict()
    state["pos_embed"] = torch.full_like(state["pos_embed"], 0.25)
    state["pos_embed"][:, 0] = 3
    torch.save(state, tmp_path / "vit.pth")
    model = load_backbone(tmp_path / "vit.pth", img_size=96)
    assert model.pos_embed.shape == (1, 37, 192) and model.load_report.resized == ["pos_embed"]
    assert torch.equal(model.pos_embed[:, 0], state["pos_embed"][:, 0])
    torch.testing.assert_close(model.pos_embed[:, 1:], torch.full((1, 36, 192), 0.25))
    pyramid = load_backbone(tmp_path / "vit.pth", img_size=(64, 96), features_only=True)
    assert pyramid(torch.randn(1, 3, 64, 96))[-1].shape == (1, 192, 4, 6)


def test_heads_are_no_classifiers(small, tmp_path):
    state = {**under("module.encoder_q.", small[0]), "module.encoder_q.fc.weight": filler((128, 512)),
             "module.encoder_q.fc.bias": filler((128,)), **under("module.encoder_k.", small[0], 7)}
    torch.save(training(arch="resnet18")(state), tmp_path / "moco.pth")
    assert inspect_checkpoint(tmp_path / "moco.pth").classes is None
    with pytest.raises(CheckpointError, match="has no classifier"):
        load_backbone(tmp_path / "moco.pth", keep_classifier=True)
    with pytest.raises(CheckpointError, match="pyramid has no classifier"):
        load_backbone(tmp_path / "moco.pth", keep_classifier=True, features_only=True)


def test_the_closest_format_of_an_unknown_file_is_named(small, tmp_path):
    torch.save({"state_dict": {"x": 1}, "student": {"a": filler((2,))}, "teacher": {"backbone.a": filler((2,))}},
               tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match="the closest is 'DINO training', which also has .*head"):
        load_backbone(tmp_path / "odd.pth")


def test_the_same_tensor_twice_is_refused(small, tmp_path):
    torch.save({**small[0], **under("module.", small[0])}, tmp_path / "twice.pth")
    with pytest.raises(CheckpointError, match="are the same tensor but for wrappers"):
        load_backbone(tmp_path / "twice.pth")


def test_weights_that_are_not_finite_are_refused(small, tmp_path):
    state = {key: value.clone() for key, value in small[0].items()}
    state["layer1.0.conv1.weight"][0, 0, 0, 0] = float("nan")
    torch.save(under("module.", state), tmp_path / "nan.pth")
    with pytest.raises(CheckpointError, match="module.layer1.0.conv1.weight is not finite"):
        load_backbone(tmp_path / "nan.pth")


def test_what_a_file_calls_its_architecture_may_be_wrong(small, tmp_path):
    torch.save({"arch": "resnet50", "state_dict": small[0]}, tmp_path / "a.pth")
    assert inspect_checkpoint(tmp_path / "a.pth").architecture == "resnet18"


@pytest.mark.slow
def test_transfer_takes_a_file_directly(programs):
    """A training file of MoCo v2, as it is."""
    options = {"channels": [8, 8, 16, 16]}
    torch.manual_seed(5)
    state = timm.create_model("resnet18", num_classes=0, **options).state_dict()
    content = training(arch="resnet18")({
        **under("module.encoder_q.", state), "module.encoder_q.fc.0.weight": filler((16, 16)),
        "module.encoder_q.fc.2.weight": filler((8, 16)), **under("module.encoder_k.", state, 7),
        "module.queue": filler((8, 64))})
    torch.save(content, programs.folder / "moco.pth.tar")
    done = programs.main("transfer", "--output=run", "--model.weights=moco.pth.tar", "--tasks=[depth]", "--epochs=1")
    assert done.code == 0, done.err
    assert json.loads((programs.folder / "run" / "results.json").read_text())["weights"]
