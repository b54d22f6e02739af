"""Releases: the same features, all that a stranger needs, nothing of the machine, nothing half written."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from harness.config import identity, load, without_volatile
from harness.errors import UserError
from pretrain import inspect_checkpoint, load_backbone
from pretrain.config import PretrainConfig
from pretrain.manifests import read_classes, uniform_subset
from pretrain.manifests.files import write_subset
from pretrain.model_card import health_rows
from pretrain.release import main, release


@pytest.fixture
def listed(tmp_path):
    """A list of 24 of 30 images in two class folders, and the folder."""
    root = tmp_path / "secret place" / "images"
    for label in ("cat", "dog"):
        (root / label).mkdir(parents=True)
        for number in range(15):
            Image.effect_noise((40, 30), 20 + number).convert("RGB").save(root / label / f"{number}.png")
    path = tmp_path / "secret place" / "even.txt"
    write_subset(uniform_subset(read_classes(root), 24, seed=5), path, "x")
    return path, root


def test_a_release_of_a_run(programs, listed, monkeypatch):
    manifest, root = listed
    data = ["--data.name=list", f"--data.manifest={manifest}", f"--data.root={root}"]
    done = programs.main("pretrain", "--name=ours", *data, "--batch_size=8", "--queue.size=16", "--epochs=1")
    assert done.code == 0, done.err
    run = programs.folder / "outputs" / "ours"
    monkeypatch.chdir(programs.folder)
    target = release("ours", "given/away")
    assert {path.name for path in target.iterdir()} == {"backbone.safetensors", "README.md", "recipe.yaml"}
    assert [path.name for path in target.parent.iterdir()] == ["away"]  # nothing left over

    images = torch.rand(2, 3, 48, 48)
    with torch.no_grad():
        for more in ({}, {"features_only": True}):
            ours, theirs = (load_backbone(source, **more).eval()(images) for source in (run, target))
            pairs = zip(ours, theirs, strict=True)
            assert all(torch.equal(one, other) for one, other in pairs)
        plain = timm.create_model("resnet18", num_classes=0, channels=[8, 8, 16, 16])
        plain.load_state_dict(load_file(target / "backbone.safetensors"))
        assert torch.equal(plain.eval()(images), load_backbone(run).eval()(images))
    info = inspect_checkpoint(target)
    assert info.architecture == "resnet18" and not info.missing and not info.unexpected

    results = json.loads((run / "results.json").read_text())
    with safe_open(target / "backbone.safetensors", framework="pt") as file:
        metadata = json.loads(file.metadata()["metadata"])
    assert metadata["metrics"] == results["metrics"] and metadata["versions"] == results["versions"]
    sha256 = hashlib.sha256(manifest.read_bytes()).hexdigest()
    assert metadata["manifest"] == {"name": "even.txt", "sha256": sha256,
                                    "made": {"kind": "uniform", "classes": 2, "seed": 5}}
    card = (target / "README.md").read_text()
    weights = hashlib.sha256((target / "backbone.safetensors").read_bytes()).hexdigest()
    for text in (sha256, weights, metadata["source"], results["versions"]["torch"], "## Licence", "# ours",
                 f"{results['metrics']['feature_rank']:.4g}", f"{results['metrics']['embedding_std']:.4g}",
                 "load_backbone(", "0.485, 0.456, 0.406", "3, 32, 32", "channels=[8, 8, 16, 16]"):
        assert text in card, text
    recipe = yaml.safe_load((target / "recipe.yaml").read_text())
    assert recipe["data"]["name"] == "list" and recipe["data"]["manifest"] == "even.txt" and "output" not in recipe
    for path in target.iterdir():
        content = path.read_bytes()
        assert b"secret place" not in content and str(programs.folder).encode() not in content, path

    again = release(run, "given/again")
    assert all((again / path.name).read_bytes() == path.read_bytes() for path in target.iterdir())
    with pytest.raises(UserError, match="given/away is there already"):
        release("ours", "given/away")

    # the recipe is the same computation
    theirs = load(PretrainConfig, ["--config", str(target / "recipe.yaml"), *data], prog="recipe")
    assert identity(theirs) == without_volatile(theirs, yaml.safe_load((run / "config.yaml").read_text()))

    manifest.write_text(manifest.read_text().replace("cat/", "dog/", 1))
    changed = (release("ours", "given/changed") / "README.md").read_text()
    assert sha256 not in changed and metadata["source"] in changed  # the list is another one now


def test_what_cannot_be_released(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def refuse(message, run="run", target="target"):
        with pytest.raises(UserError, match=message) as error:
            release(run, target)
        assert "\n" not in str(error.value) and not (tmp_path / "target").exists()

    (tmp_path / "outputs" / "first").mkdir(parents=True)
    refuse("there is no run fist .did you mean 'first'", "fist")
    refuse("first is no folder of a run", "first")
    run = tmp_path / "outputs" / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text("seed: 0")
    refuse("is not finished")
    (run / "results.json").write_text("{")
    refuse("results.json is damaged")
    (run / "results.json").write_text('{"dataset": "scenes"}')
    refuse("is not a pretraining run")
    (run / "results.json").write_text('{"kind": "pretrain"}')
    refuse("backbone.safetensors is missing")
    (run / "checkpoints" / "backbone.safetensors").write_bytes(b"damaged")
    refuse("cannot read .*backbone.safetensors")
    (run / "config.yaml").write_text("{")
    refuse("config.yaml is damaged")
    refuse("name a folder", target="backbone.safetensors")
    assert not list(tmp_path.glob(".*"))


def test_health_rows_leave_out_what_was_not_measured():
    rows = health_rows({"embedding_std": 0.91234, "feature_rank": None, "step": 4, "top1": 50.0})
    assert [value for _, value in rows] == ["0.9123", "50"]


def test_the_command(monkeypatch):
    monkeypatch.setattr("sys.argv", ["release", "a run", "a folder"])
    monkeypatch.setattr("pretrain.release.release", lambda run, target: Path(f"{target} of {run}"))
    assert main() == 0
