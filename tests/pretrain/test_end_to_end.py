"""From a folder of photographs to a fine-tuned network, by the commands of the documentation."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys

import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file

from harness.checkpoint import load_file as load_state
from pretrain import load_backbone
from pretrain.checkpoints import content_digest
from scenes import Scenes

PHOTOGRAPHS, BATCH, SAVED_EVERY = 60, 8, 3
IN_EPOCH = PHOTOGRAPHS // BATCH
"""Steps of an epoch: 7, no multiple of those between two checkpoints."""
OPTIONS = ["--data.name=shards", "--data.root=shards", "--model.backbone=resnet18", "--model.backbone_options={}",
           f"--batch_size={BATCH}", "--epochs=3", "--workers=1", f"--loop.save_steps={SAVED_EVERY}"]


def write_photographs(folder):
    """JPEGs of scenes in two folders, one of them grey, one turned, and one file that is empty."""
    scenes = Scenes(split="pretrain", count=PHOTOGRAPHS, size=64, labels=False)
    for number in range(PHOTOGRAPHS):
        path = folder / ("indoors" if number % 2 else "by day") / f"IMG.{number:04d}.JPG"
        path.parent.mkdir(parents=True, exist_ok=True)
        image, exif = Image.fromarray(scenes.images[number]), Image.Exif()
        exif[0x0112] = 6 if number == 3 else 1
        (image.convert("L") if number == 5 else image).save(path, quality=90, exif=exif)
    (folder / "indoors" / "empty.jpg").touch()


def finish(process) -> str:
    """What a program that is to succeed says."""
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return output


def tensors(state):
    """All tensors of a nest."""
    if isinstance(state, torch.Tensor):
        yield state
    elif isinstance(state, dict | list | tuple):
        for value in state.values() if isinstance(state, dict) else state:
            yield from tensors(value)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_photographs_shards_kill_resume_export_inspect_transfer(programs, wait_for_step, same_runs):
    folder = programs.folder
    repository = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

    def command(module, *arguments):
        done = subprocess.run([sys.executable, "-m", module, *arguments], cwd=folder, text=True, capture_output=True,
                              env={**os.environ, "PYTHONPATH": repository})
        assert done.returncode == 0, done.stderr
        return done

    write_photographs(folder / "photos")
    packed = command("pretrain.shards", "photos", "shards", "--per-shard", "13")
    assert f"packed {PHOTOGRAPHS} images into 5 shards" in packed.stdout
    assert "indoors/empty.jpg is empty" in packed.stderr
    assert len(list((folder / "shards").glob("train-*.tar"))) == 5

    process = programs.start("pretrain", "--output=killed", *OPTIONS)
    wait_for_step(process, folder / "killed", IN_EPOCH + 3)
    process.kill()
    process.wait()
    assert not (folder / "killed" / "results.json").exists()
    saved = load_state(folder / "killed" / "checkpoints" / "last.pt")["step"]
    assert saved % SAVED_EVERY == 0 and saved % IN_EPOCH, "the middle of an epoch"
    assert f"at step {saved}" in finish(programs.start("pretrain", "--output=killed", *OPTIONS))
    finish(programs.start("pretrain", "--output=whole", *OPTIONS))
    same_runs(folder / "whole", folder / "killed")
    assert content_digest(folder / "whole") == content_digest(folder / "killed")
    results = json.loads((folder / "killed" / "results.json").read_text())
    assert results["images"] == PHOTOGRAPHS and results["unreadable"] == {}

    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = load_backbone(folder / "killed").eval()(images)
        for target in ("ours.safetensors", "ours.pth", "ours.pkl"):
            command("pretrain.checkpoints", "export", "killed", target)
            assert torch.equal(load_backbone(folder / target).eval()(images), expected), target
        for weights in (load_file(folder / "ours.safetensors"), torch.load(folder / "ours.pth", weights_only=True)):
            model = timm.create_model("resnet18", num_classes=0)
            model.load_state_dict(weights)
            assert torch.equal(model.eval()(images), expected)
            model = torchvision.models.resnet18()
            report = model.load_state_dict(weights, strict=False)
            assert report.missing_keys == ["fc.weight", "fc.bias"] and not report.unexpected_keys
            model.fc = torch.nn.Identity()
            torch.testing.assert_close(model.eval()(images), expected, rtol=0, atol=1e-5)
    arrays = pickle.loads((folder / "ours.pkl").read_bytes())["model"]
    assert (arrays["stem.conv1.weight"] == weights["conv1.weight"].numpy()).all() and "res5.1.conv2.norm.bias" in arrays

    for source, kind in (("killed", "tasklift backbone"), ("killed/checkpoints/last.pt", "tasklift run"),
                         ("ours.safetensors", "tasklift backbone"), ("ours.pth", "state dict"),
                         ("ours.pkl", "Detectron2")):
        shown = command("pretrain.checkpoints", "inspect", source).stdout
        lines = [" ".join(line.split()) for line in shown.splitlines()]
        assert f"format {kind}" in lines, source
        wanted = "100 of 100" if source == "ours.pkl" else "120 of 120"  # Detectron2 does not count batches
        assert f"would load {wanted} tensors of resnet18: everything" in lines, lines

    tuned = finish(programs.start("transfer", "--output=tuned", "--model.weights=ours.safetensors", "--tasks=[depth]",
                                  "--model.backbone_options={}", "--epochs=1", "--optimizer.lr=1e-9"))
    assert "Traceback" not in tuned
    results = json.loads((folder / "tuned" / "results.json").read_text())
    assert results["weights"] == "ours.safetensors"
    stems = [value for value in tensors(load_state(folder / "tuned" / "checkpoints" / "last.pt"))
             if value.shape == weights["conv1.weight"].shape]
    close = [torch.allclose(value, weights["conv1.weight"], rtol=0, atol=1e-6) for value in stems]
    assert any(close), "steps this small leave the weights that it began with"
