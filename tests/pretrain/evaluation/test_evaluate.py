"""The command, its folder, the backbones and their cached features."""

from __future__ import annotations

import json
import random
import shutil
import sys

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torchvision.transforms import functional as vision

from harness.errors import UserError
from harness.images import UnreadableImage
from pretrain import evaluate, save_backbone
from pretrain.evaluation.collection import build_table, read_measurements
from pretrain.evaluation.features import FeatureConfig, Features, middle
from pretrain.evaluation.labelled import LabelledImages
from pretrain.evaluation.subject import Subject

SMALL = {"layers": [1, 1, 1, 1], "channels": [8, 12, 16, 20]}
FEW = ("--data.train", "12", "--data.test", "8", "--data.size", "32", "--workers", "0", "--threads", "1")


TOY = """
from pretrain.evaluation.base import PROTOCOLS, Finding, Protocol


@PROTOCOLS.register("toy")
class Toy(Protocol):
    needs = "class"
    columns = {"spread": "spread"}

    def __init__(self, k: int = 1):
        self.k = k

    def measure(self, features, data, folder, seed):
        vectors = features.pooled(data.split(data.test), data.resize, data.crop)
        return Finding({"spread": self.k * float(vectors.std(0).mean())})
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    model = timm.create_model("resnet18", num_classes=0, **SMALL)
    save_backbone(path, model, "resnet18", options=SMALL, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25),
                  input_size=(3, 32, 32))
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    scenes = tmp_path / "cache"
    monkeypatch.setenv("TASKLIFT_CACHE", str(scenes))
    return scenes


@pytest.fixture
def command(monkeypatch, tmp_path):
    def run(*words):
        monkeypatch.setattr(sys, "argv", ["evaluate", *map(str, words)])
        return evaluate.main()

    return run


@pytest.fixture
def plugin(tmp_path):
    """A protocol of the user's own."""
    path = tmp_path / "toy_protocol.py"
    path.write_text(TOY)
    return path


class Mixed(LabelledImages):
    """Images of two sizes."""

    def __len__(self):
        return 7

    def image(self, number):
        shape = (40, 32, 3) if number % 3 else (32, 48, 3)
        return np.random.default_rng(number).integers(0, 256, shape, np.uint8)

    def name(self, number):
        return str(number)

    def fingerprint(self):
        return "mixed"


def features(source, **options):
    return Features(Subject(str(source)), FeatureConfig(**options), torch.device("cpu"))


@pytest.mark.parametrize("layer", ["pool", "layer4", "-1", "layer2"])
def test_features_are_those_of_the_network(checkpoint, layer):
    found = features(checkpoint, layer=layer, batch_size=3).pooled(Mixed(), None, None)
    state = features(checkpoint).model.state_dict()
    model = timm.create_model("resnet18", num_classes=0, **SMALL).eval()
    model.load_state_dict(state)
    mean, std = torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1), torch.tensor([0.2, 0.3, 0.25]).view(3, 1, 1)
    hooked = []
    model.layer2.register_forward_hook(lambda module, inputs, output: hooked.append(output.mean((2, 3))[0]))
    for number in range(7):
        image = torch.from_numpy(Mixed().image(number)).permute(2, 0, 1) / 255
        with torch.no_grad():
            expected = model(((image - mean) / std)[None])[0]
        # the pooled output is the mean of the last stage in this network
        expected = hooked[-1] if layer == "layer2" else expected
        np.testing.assert_allclose(found[number], expected.numpy(), rtol=1e-4, atol=1e-5)


def test_features_are_kept_by_content(checkpoint, cache, tmp_path):
    first = features(checkpoint).pooled(Mixed(), 32, 24)
    kept = list((cache / "features").glob("*.npy"))
    assert len(kept) == 1 and isinstance(first, np.memmap)
    written = kept[0].stat().st_mtime_ns
    moved = shutil.copy(checkpoint, tmp_path / "elsewhere.safetensors")
    np.testing.assert_array_equal(features(moved, batch_size=2).pooled(Mixed(), 32, 24), first)
    assert kept[0].stat().st_mtime_ns == written and len(list((cache / "features").glob("*.npy"))) == 1
    for options, arguments in (({"layer": "layer4"}, (32, 24)), ({}, (32, 0)), ({"crop": 20}, (32, 24))):
        features(checkpoint, **options).pooled(Mixed(), *arguments)
    assert len(list((cache / "features").glob("*.npy"))) == 4
    without = features(checkpoint, cache=False).pooled(Mixed(), 32, 24)
    np.testing.assert_array_equal(without, first)
    assert not without.flags.writeable and len(list((cache / "features").glob("*.npy"))) == 4


@pytest.mark.parametrize(("damage", "whole"), [
    (None, 4), (lambda content: content[:-3], 2), (lambda content: b"no" + content, 0)])
def test_features_that_were_interrupted_go_on(checkpoint, cache, damage, whole):
    """With whole batches of what is there; from the start where it cannot be read."""
    seen = []

    class Stopped(Mixed):
        def image(self, number):
            seen.append(number)
            if number == 5 and seen.count(5) == 1:
                raise KeyboardInterrupt
            return super().image(number)

    with pytest.raises(KeyboardInterrupt):
        features(checkpoint, batch_size=2).pooled(Stopped(), None, None)
    (part,) = (cache / "features").glob("*.part")
    if damage:
        part.write_bytes(damage(part.read_bytes()))
    seen = [5]
    found = features(checkpoint, batch_size=2).pooled(Stopped(), None, None)
    assert seen[1:] == list(range(whole, 7))
    np.testing.assert_array_equal(found, features(checkpoint, batch_size=2, cache=False).pooled(Mixed(), None, None))
    assert isinstance(found, np.memmap) and not part.exists()


def test_transformers_see_images_of_any_size():
    """As they are at their own size, and refused in one line where they cannot."""
    found = features("random:test_vit", cache=False)
    own = found.subject.build()
    images = torch.randn(2, 3, *own.pretrained_cfg["input_size"][1:])
    with torch.no_grad():
        torch.testing.assert_close(found.model(images), own(images), rtol=0, atol=0)
        assert found.maps(found.model, torch.randn(1, 3, 50, 70), found.place(found.model, -1)).shape[2:] == (4, 5)
    assert np.isfinite(found.pooled(Mixed(), None, None)).all()
    found.model = own  # as networks that have one size only
    with pytest.raises(UserError, match="not give features for .* set --features.resize .*crop to its own size, 160$"):
        found.pooled(Mixed(), None, None)


def test_a_damaged_cache_is_made_again(checkpoint, cache):
    first = np.array(features(checkpoint).pooled(Mixed(), None, None))
    for size in (first.nbytes, 0):
        (kept,) = (cache / "features").glob("*.npy")
        kept.write_bytes(kept.read_bytes()[:size])
        np.testing.assert_array_equal(features(checkpoint).pooled(Mixed(), None, None), first)


def test_a_cache_that_cannot_be_written(checkpoint, cache, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pretrain.evaluation.feature_file.os.replace", full)
    with pytest.raises(UserError, match="cannot keep features in .*features: the disk is full: .*--features.cache fal"):
        features(checkpoint).pooled(Mixed(), None, None)
    monkeypatch.setenv("TASKLIFT_CACHE", str(checkpoint / "below"))
    with pytest.raises(UserError, match="cannot keep features in .*: Not a directory: .*er folder in TASKLIFT_CACHE"):
        features(checkpoint).pooled(Mixed(), None, None)


@pytest.mark.parametrize(("height", "width"), [(40, 60), (60, 40), (32, 32), (20, 90)])
def test_the_middle_is_what_torchvision_cuts(height, width):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    picture = vision.resize(Image.fromarray(pixels), 30, vision.InterpolationMode.BICUBIC)
    expected = np.asarray(vision.center_crop(picture, 24))
    found = middle(pixels, 30, 24)
    assert found.shape == (24, 24, 3)
    np.testing.assert_array_equal(found, expected)
    assert middle(pixels, 0, 0) is pixels and middle(pixels, None, 1000).shape == pixels.shape


def test_random_weights_are_a_function_of_the_seed(checkpoint):
    torch.manual_seed(5)
    random.seed(5)
    before = torch.random.get_rng_state(), random.getstate()
    one, same, other = (Subject(f"random:{checkpoint}", seed=seed) for seed in (0, 0, 1))
    weights = [subject.build().state_dict() for subject in (one, same, other)]
    assert torch.equal(torch.random.get_rng_state(), before[0]) and random.getstate() == before[1]
    trained = Subject(str(checkpoint)).build().state_dict()
    assert {key: value.shape for key, value in weights[0].items()} == {k: v.shape for k, v in trained.items()}
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in trained)
    for unlike in (weights[2], trained):
        assert not torch.equal(weights[0]["conv1.weight"], unlike["conv1.weight"])
    assert one.digest == same.digest != other.digest
    dilated = one.build(output_stride=8).state_dict()
    assert all(torch.equal(dilated[key], weights[0][key]) for key in dilated)


def test_a_folder_grows_and_nothing_is_measured_twice(command, checkpoint, plugin, tmp_path, capsys):
    folder = tmp_path / "evaluation"
    arguments = ("--tasks", "toy", "--toy.k", "3", "--plugin", plugin, "--output", folder, *FEW)
    assert command("--checkpoint", checkpoint, *arguments) == 0
    (path,) = folder.glob("measurements/*/measurement.json")
    written = path.stat().st_mtime_ns
    moved = shutil.copy(checkpoint, tmp_path / "moved.safetensors")
    assert command("--checkpoint", f"[{moved}, random:{checkpoint}]", "--labels", "[a, b]", *arguments) == 0
    out = capsys.readouterr().out
    assert "1 of 2 measurements were in" in out and len(list(folder.glob("measurements/*"))) == 2
    found = {m["checkpoint"]: m for m in read_measurements([folder])}
    assert set(found) == {"a", "b"} and found["a"]["architecture"] == "resnet18"
    assert found["a"]["metrics"]["spread"] == json.loads(path.read_text())["metrics"]["spread"]
    assert path.stat().st_mtime_ns >= written  # its label was changed, nothing else
    page = (folder / "report.html").read_text()
    assert "toy on scenes: a" in page and "toy on scenes: b" in page
    table = build_table(list(found.values()))
    assert table.names == ("Checkpoint",) and [row[0] for row in table.rows] == ["a", "b"]
    markdown, report = tmp_path / "t.md", tmp_path / "r.html"
    assert command("compare", folder, "--markdown", markdown, "--report", report) == 0
    assert "| a |" in markdown.read_text() and "toy on scenes: b" in report.read_text()
    with pytest.raises(UserError, match="a and c have the same content"):
        command("--checkpoint", f"[{checkpoint}, {moved}]", "--labels", "[a, c]", *arguments)
    # another option is another measurement
    assert command("--checkpoint", moved, "--labels", "[a]", *arguments[:3], "2", *arguments[4:]) == 0
    assert len(list(folder.glob("measurements/*"))) == 3


@pytest.mark.parametrize(("words", "message"), [
    ((), "no checkpoint is given"),
    (("--checkpoint", "nothing.pth"), "nothing.pth"),
    (("--checkpoint", "random:nothing"), "nothing"),
    (("--checkpoint", "[random:resnet10t, random:resnet10t]"), "two checkpoints would be called 'random resnet10t'"),
    (("--checkpoint", "random:resnet10t", "--labels", "[a, b]"), "2 labels for 1 checkpoints"),
    (("--checkpoint", "random:resnet10t", "--tasks", "knnn"), "unknown evaluation protocol 'knnn'.*'knn'"),
    (("--checkpoint", "random:resnet10t", "--tasks", "[knn, knn]"), "named twice"),
    (("--checkpoint", "random:resnet10t", "--knn.kk", "3"), "unknown option --knn.kk.*knn.k"),
    (("--checkpoint", "random:resnet10t", "--linear.epochs", "3"), "unknown option --linear.epochs"),
    (("--checkpoint", "random:resnet10t", "--features.layer", "layer9", *FEW), "no layer 'layer9'.*layer4"),
    (("--checkpoint", "random:resnet10t", "--features.crop", "-1", *FEW), "features.crop is -1"),
    (("--checkpoint", "random:resnet10t", "--device", "tpu", *FEW), "--device tpu: .*choose auto, cpu"),
])
def test_mistakes_are_one_line(command, tmp_path, words, message):
    with pytest.raises(UserError, match=message) as error:
        command(*words, "--output", tmp_path / "evaluation")
    assert "\n" not in str(error.value)


def test_a_protocol_needs_its_kind_of_label(command, tmp_path):
    for split in ("train", "test"):
        for name in ("x", "y"):
            path = tmp_path / "data" / split / name
            path.mkdir(parents=True)
            Image.new("RGB", (32, 32)).save(path / f"{split}.png")
    with pytest.raises(UserError, match="'voc_svm' needs attributes of images, and folder has one class for each"):
        command("--checkpoint", "random:resnet10t", "--tasks", "voc_svm", "--data.name", "folder", "--data.root",
                tmp_path / "data", "--output", tmp_path / "evaluation")


def test_folders_of_others_are_left_alone(command, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match=r"holds 'thesis.tex' and is not an evaluation"):
        command("--checkpoint", "random:resnet10t", *FEW, "--output", tmp_path / "mine")
    with pytest.raises(UserError, match="has no results.json"):
        command("compare", tmp_path / "mine")


def test_a_configuration_names_several_protocols(command, checkpoint, plugin, tmp_path, capsys):
    config = tmp_path / "config.yaml"
    config.write_text(f"checkpoint: {checkpoint}\ntasks: [toy, view_iou]\ntoy: {{k: 2}}\nview_iou: {{draws: 50}}\n"
                      f"plugin: [{plugin}]\ndata: {{name: scenes, train: 12, test: 8, size: 32}}\n")
    assert command("--config", config, "--tasks", "[toy]", "--output", tmp_path / "evaluation") == 0
    assert "dropped the options of view_iou" in capsys.readouterr().err
    (found,) = read_measurements([tmp_path / "evaluation"])
    assert found["options"]["k"] == 2 and found["data"] == "scenes"


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_is_one_line(checkpoint, workers):
    class Damaged(Mixed):
        def image(self, number):
            raise UnreadableImage("a.jpg", "truncated")

    found = Features(Subject(str(checkpoint)), FeatureConfig(cache=False), torch.device("cpu"), workers)
    with pytest.raises(UserError, match=r"^a.jpg cannot be read \(truncated\): get the file again$"):
        found.pooled(Damaged(), None, None)


def test_a_backbone_is_built_once_for_all_protocols(command, checkpoint, plugin, tmp_path, monkeypatch):
    built = []
    build = Subject.build
    monkeypatch.setattr(Subject, "build", lambda self, **options: built.append(self.label) or build(self, **options))
    plugin.write_text(TOY + TOY[TOY.index("@PROTOCOLS"):].replace('"toy"', '"other_toy"').replace("Toy", "OtherToy"))
    assert command("--checkpoint", f"[{checkpoint}, random:{checkpoint}]", "--labels", "[a, b]", "--plugin", plugin,
                   "--tasks", "[toy, other_toy, view_iou]", "--view_iou.draws", "50", "--output", tmp_path / "e",
                   *FEW) == 0
    assert built == ["a", "b"]
    order = [(m["protocol"], m["checkpoint"]) for m in read_measurements([tmp_path / "e"])]
    assert order == [("toy", "a"), ("toy", "b"), ("other_toy", "a"), ("other_toy", "b"), ("view_iou", "")]
