"""Loading, inspecting and saving backbones."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import timm
import torch
from safetensors import safe_open
from torch import nn

import pretrain.checkpoints
from harness.errors import UserError
from pretrain import CheckpointError, inspect_checkpoint, load_backbone, save_backbone
from pretrain.checkpoints import content_digest
from pretrain.formats.base import take_prefix, wrapper_length

LAYOUTS = Path(__file__).parent.parent / "fixtures" / "checkpoint_layouts"
MEAN, STD, SIZE = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), (3, 64, 64)
SMALL = {"channels": [8, 8, 16, 16]}


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    model = timm.create_model("resnet18", num_classes=0)
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1)
    return model.eval()


@pytest.fixture
def saved(backbone, tmp_path):
    path = tmp_path / "run" / "backbone.safetensors"
    save_backbone(path, backbone, "resnet18", MEAN, STD, SIZE, {"epochs": 3})
    return path


def same(one: nn.Module, two: nn.Module) -> bool:
    first, second = one.state_dict(), two.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def layout_state(name: str) -> OrderedDict:
    """Random weights in a published layout."""
    layout = json.loads((LAYOUTS / f"{name}.json").read_text())["state_dict"]
    torch.manual_seed(0)
    return OrderedDict(
        (key, torch.rand(shape).to(getattr(torch, dtype))) for key, (shape, dtype) in layout.items()
    )


def test_round_trip_with_convention(backbone, saved):
    loaded = load_backbone(saved)
    assert same(loaded, backbone)
    config = loaded.pretrained_cfg
    assert (config["mean"], config["std"], config["input_size"]) == (MEAN, STD, SIZE)
    with safe_open(saved, "pt") as file:
        assert json.loads(file.metadata()["metadata"]) == {"epochs": 3}


def test_run_folder_and_run_name(backbone, saved, monkeypatch, tmp_path):
    assert same(load_backbone(saved.parent), backbone)
    monkeypatch.setattr(pretrain.checkpoints, "RUNS", tmp_path)
    assert same(load_backbone("run"), backbone)


def test_training_state_of_a_run(tmp_path):
    encoder = nn.ModuleDict({
        "backbone": timm.create_model("resnet18", num_classes=0, **SMALL), "head": nn.Linear(16, 4)
    })
    state = {"format": "tasklift-pretrain/1", "step": 3, "backbone": "resnet18", "backbone_options": SMALL,
             "query": encoder.state_dict(), "key": encoder.state_dict(), "queues": {"head": torch.zeros(5, 4)}}
    (tmp_path / "checkpoints").mkdir()
    torch.save(state, tmp_path / "checkpoints" / "last.pt")
    for source in (tmp_path, tmp_path / "checkpoints" / "last.pt"):
        assert same(load_backbone(source), encoder["backbone"])
    info = inspect_checkpoint(tmp_path)
    assert (info.format, info.architecture, info.encoder_prefix) == ("tasklift run", "resnet18", "backbone.")
    assert info.missing == [] and info.unexpected == ["head.weight", "head.bias"]
    assert [(part.role, len(part.keys)) for part in info.parts] == [
        ("projection head", 2), ("momentum encoder", len(encoder.state_dict())), ("queue", 1)]
    assert dict(info.training) == {"step": "3"}


def test_model_options_travel(tmp_path):
    model = timm.create_model("resnet18", num_classes=0, **SMALL)
    save_backbone(tmp_path / "b.safetensors", model, "resnet18", MEAN, STD, SIZE, options=SMALL)
    assert same(load_backbone(tmp_path / "b.safetensors"), model)
    assert inspect_checkpoint(tmp_path / "b.safetensors").missing == []
    pyramid = load_backbone(tmp_path / "b.safetensors", features_only=True)
    assert pyramid.feature_info.channels()[1:] == SMALL["channels"]


@pytest.mark.parametrize("wrap", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_wrappers_are_stripped_at_the_start_only(backbone, tmp_path, wrap):
    path = tmp_path / "flat.pth"
    torch.save({wrap + key: value for key, value in backbone.state_dict().items()}, path)
    assert same(load_backbone(path), backbone)
    info = inspect_checkpoint(path)
    assert (info.format, info.architecture, info.encoder_prefix) == ("state dict", "resnet18", wrap)
    assert len(info.matched) == len(backbone.state_dict()) and not info.missing


def test_prefix_is_matched_at_the_start_only():
    tensor = torch.zeros(1)
    state = {"module.encoder.a": tensor, "other.encoder.b": tensor, "encoder.encoder.c": tensor, "step": 3}
    taken = take_prefix(state, "encoder.")
    assert list(taken.state) == ["a", "encoder.c"] and taken.prefix == "module.encoder."
    assert taken.others == ("other.encoder.b", "step")
    assert wrapper_length("module._orig_mod.module.x") == 24 and wrapper_length("x.module.") == 0


def test_torchvision_layout(tmp_path):
    state = layout_state("torchvision_resnet50")
    torch.save(state, tmp_path / "resnet50.pth")
    info = inspect_checkpoint(tmp_path / "resnet50.pth")
    assert (info.format, info.architecture) == ("state dict", "resnet50")
    assert info.missing == [] and info.unexpected == ["fc.weight", "fc.bias"]
    model = load_backbone(tmp_path / "resnet50.pth")
    assert torch.equal(model.layer4[2].conv3.weight, state["layer4.2.conv3.weight"])
    whole = load_backbone(tmp_path / "resnet50.pth", keep_classifier=True)
    assert torch.equal(whole.fc.weight, state["fc.weight"])


def test_missing_batch_counters_do_not_matter(backbone, tmp_path):
    state = {key: v for key, v in backbone.state_dict().items() if "num_batches_tracked" not in key}
    torch.save(state, tmp_path / "old.pth")
    assert inspect_checkpoint(tmp_path / "old.pth").missing == []
    load_backbone(tmp_path / "old.pth")


@pytest.mark.parametrize("architecture", ["resnet18", "convnext_atto", "vit_tiny_patch16_224"])
def test_features_only_gives_the_same_features(tmp_path, architecture):
    model = timm.create_model(architecture, num_classes=0).eval()
    size = model.pretrained_cfg["input_size"]
    save_backbone(tmp_path / "b.safetensors", model, architecture, MEAN, STD, size)
    pyramid = load_backbone(tmp_path / "b.safetensors", features_only=True).eval()
    assert pyramid.pretrained_cfg["mean"] == MEAN and "state_dict" not in pyramid.pretrained_cfg
    images = torch.rand(1, *size)
    with torch.no_grad():
        if architecture.startswith("vit"):
            expected = model.forward_intermediates(images, intermediates_only=True)[-1]
        else:
            expected = model.forward_features(images)
            expected = model.norm_pre(expected) if hasattr(model, "norm_pre") else expected
        torch.testing.assert_close(pyramid(images)[-1], expected)


def test_min_matched(backbone, tmp_path):
    state = backbone.state_dict()
    del state["layer4.1.conv2.weight"]
    torch.save(state, tmp_path / "partial.pth")
    with pytest.raises(CheckpointError, match=r"has \d+ of \d+ tensors.*layer4.1.conv2.weight is not in it"):
        load_backbone(tmp_path / "partial.pth", "resnet18")
    loaded = load_backbone(tmp_path / "partial.pth", "resnet18", min_matched=0.9)
    assert torch.equal(loaded.conv1.weight, backbone.conv1.weight)
    for share in (-0.1, 1.5, 90, float("nan")):
        with pytest.raises(CheckpointError, match="min_matched is .*0 to 1"):
            load_backbone(tmp_path / "partial.pth", "resnet18", min_matched=share)


def test_another_architecture_is_one_line(saved):
    message = "does not fit 'resnet50'.*set the architecture to resnet18"
    with pytest.raises(CheckpointError, match=message) as caught:
        load_backbone(saved, "resnet50")
    assert "\n" not in str(caught.value) and isinstance(caught.value, UserError)
    assert "closest known format: 'tasklift backbone'" in str(caught.value)
    with pytest.raises(CheckpointError, match="did you mean 'resnet18'"):
        load_backbone(saved, "resnet8")
    with pytest.raises(CheckpointError, match="conv1.weight is .*64, 3, 7, 7.*64, 5, 7, 7"):
        load_backbone(saved, in_chans=5)
    with pytest.raises(CheckpointError, match="has no classifier"):
        load_backbone(saved, keep_classifier=True)


def test_code_in_a_file_is_refused_and_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match=r"(posix|os)\.system"):
        load_backbone(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name,content", [
    ("text.pth", b"not a checkpoint"), ("empty.pth", b""), ("text.safetensors", b"not a checkpoint either")
])
def test_damaged_files(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name) as caught:
        inspect_checkpoint(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_what_is_not_there_or_unknown(tmp_path):
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        load_backbone(tmp_path / "nothing.pth")
    with pytest.raises(CheckpointError, match="holds no backbone"):
        load_backbone(tmp_path)
    torch.save({"weights": {"a": torch.zeros(1)}, "step": 3}, tmp_path / "strange.pth")
    with pytest.raises(CheckpointError, match="no known checkpoint format.*weights, step"):
        load_backbone(tmp_path / "strange.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="holds a list"):
        load_backbone(tmp_path / "list.pth")
    torch.save({"a": torch.zeros(1)}, tmp_path / "one.pth")
    assert inspect_checkpoint(tmp_path / "one.pth").architecture is None
    with pytest.raises(CheckpointError, match="does not say its architecture"):
        load_backbone(tmp_path / "one.pth")


def test_failed_save_keeps_the_old_file(saved, backbone, monkeypatch):
    before = saved.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="disk is full"):
        save_backbone(saved, backbone, "resnet18", MEAN, STD, SIZE)
    assert saved.read_bytes() == before and len(list(saved.parent.iterdir())) == 1


def test_inspect_prints_a_table(saved, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["checkpoints", "inspect", str(saved)])
    assert pretrain.checkpoints.main() == 0
    shown = capsys.readouterr().out
    assert "tasklift backbone" in shown and "resnet18" in shown


def test_command_reports_an_error_in_one_line(tmp_path):
    failed = subprocess.run(
        [sys.executable, "-m", "pretrain.checkpoints", "inspect", str(tmp_path / "no.pth")], text=True,
        capture_output=True, cwd=Path(pretrain.__file__).parents[1],
    )
    assert failed.returncode == 2 and failed.stderr.count("\n") == 1 and "Traceback" not in failed.stderr


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_export(saved, backbone, tmp_path, monkeypatch, suffix):
    target = tmp_path / f"copy{suffix}"
    monkeypatch.setattr(sys, "argv", ["checkpoints", "export", str(saved), str(target)])
    assert pretrain.checkpoints.main() == 0
    loaded = load_backbone(target)
    assert same(loaded, backbone)
    assert (loaded.pretrained_cfg["mean"] == MEAN) == (suffix == ".safetensors")
    with pytest.raises(CheckpointError, match="cannot export"):
        pretrain.checkpoints._export(str(saved), "x.zip", None)


def test_importing_the_package_needs_no_torch():
    code = "import sys, pretrain; assert 'torch' not in sys.modules; assert 'load_backbone' in dir(pretrain)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(pretrain.__file__).parents[1])


def test_the_same_weights_give_the_same_bytes(backbone, tmp_path):
    """Whatever order the library puts the metadata in."""
    path, contents = tmp_path / "backbone.safetensors", set()
    for _ in range(6):
        save_backbone(path, backbone, "resnet18", (0.5,) * 3, (0.25,) * 3, (3, 32, 32), {"method": "mö", "epochs": 3})
        contents.add(path.read_bytes())
    assert len(contents) == 1
    content = contents.pop()
    length = int.from_bytes(content[:8], "little")
    assert length % 8 == 0 and list(json.loads(content[8 : 8 + length])["__metadata__"]) == sorted(
        ["format", "tasklift", "architecture", "options", "pretrained_cfg", "metadata"])
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["metadata"]) == {"method": "mö", "epochs": 3}
        assert all(torch.equal(file.get_tensor(key), value) for key, value in backbone.state_dict().items())


def test_content_digest_is_that_of_the_bytes(tmp_path):
    (tmp_path / "a.pt").write_bytes(b"x" * (2**20 + 5))
    assert content_digest(tmp_path / "a.pt") == hashlib.blake2b(b"x" * (2**20 + 5)).hexdigest()[:20]
