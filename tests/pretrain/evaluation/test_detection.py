"""The export for Detectron2: complete, readable without torch, and refused where it could not be built there."""

from __future__ import annotations

import json
import pickle
import sys
import types

import numpy as np
import pytest
import torch
import yaml

from harness.errors import UserError
from pretrain.evaluation import detectron2_training
from pretrain.evaluation.base import PROTOCOLS, Finding
from pretrain.evaluation.features import FeatureConfig, Features
from pretrain.evaluation.subject import Subject
from pretrain.matching import create

DETECTION = PROTOCOLS.get("detection")


def stand_in(name, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), **options):
    model = create(name, {"num_classes": 0, **options})
    model.pretrained_cfg = {**model.pretrained_cfg, "mean": mean, "std": std, "options": options}
    return types.SimpleNamespace(model=model, subject=types.SimpleNamespace(label=f"my {name}"))


class OnlyArrays(pickle.Unpickler):
    """Knows numpy's arrays and nothing else."""

    def find_class(self, module, name):
        assert module.split(".")[0] == "numpy", f"{module}.{name}"
        return super().find_class(module, name)


def names_of_resnet50():
    """As Detectron2's own ResNet-50 calls its tensors: convolutions without bias, each with a norm."""
    convolutions = ["stem.conv1"]
    for stage, blocks in zip((2, 3, 4, 5), (3, 4, 6, 3), strict=True):
        for block in range(blocks):
            convolutions += [f"res{stage}.{block}.{part}"
                             for part in (["shortcut"] if block == 0 else []) + ["conv1", "conv2", "conv3"]]
    return {f"{name}.{part}" for name in convolutions for part in
            ("weight", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var")}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detection")
    features = stand_in("resnet50", mean=(0.5, 0.25, 0.4), std=(0.1, 0.2, 0.3))
    return folder, features, DETECTION(gpus=4).measure(features, None, folder, 0)


def test_weights(exported):
    folder, features, _ = exported
    with open(folder / "backbone.pkl", "rb") as file:
        content = OnlyArrays(file).load()
    arrays = content["model"]
    assert set(arrays) == names_of_resnet50() and len(arrays) == 53 * 5 and content["matching_heuristics"] is True
    assert isinstance(content["__author__"], str)
    state = {key: value for key, value in features.model.state_dict().items() if "num_batches" not in key}
    assert len(state) == len(arrays)
    for ours, theirs in (("conv1.weight", "stem.conv1.weight"),
                         ("layer4.2.bn3.running_var", "res5.2.conv3.norm.running_var"),
                         ("layer1.0.downsample.0.weight", "res2.0.shortcut.weight")):
        assert np.array_equal(arrays[theirs], state[ours].numpy())
    assert sorted(value.shape for value in arrays.values()) == sorted(tuple(value.shape) for value in state.values())


def test_configuration_and_command(exported):
    folder, _, found = exported
    config = yaml.safe_load((folder / "voc_c4_24k.yaml").read_text())
    assert config["MODEL"]["PIXEL_MEAN"] == [127.5, 63.75, 102.0]
    assert config["MODEL"]["PIXEL_STD"] == [25.5, 51.0, 76.5]
    assert config["INPUT"]["FORMAT"] == "RGB"
    assert config["MODEL"]["RESNETS"] == {"DEPTH": 50, "OUT_FEATURES": ["res4"], "NORM": "SyncBN",
                                          "STRIDE_IN_1X1": False}
    assert (folder / config["MODEL"]["WEIGHTS"]).is_file()
    assert (config["SOLVER"]["MAX_ITER"], config["SOLVER"]["STEPS"], config["SOLVER"]["BASE_LR"]) == (
        24000, [18000, 22000], 0.02)
    assert found.metrics == {} and {path.name for path, _ in found.files} == {
        "backbone.pkl", "voc_c4_24k.yaml", "train.py", "README.md"}
    command = "python train.py --config-file voc_c4_24k.yaml --num-gpus 4"
    assert command in (folder / "README.md").read_text()
    compile((folder / "train.py").read_text(), "train.py", "exec")


def test_the_program_adds_the_norm(monkeypatch):
    """What it does with Detectron2, of which only what it calls is made here."""
    done = []

    class Config(types.SimpleNamespace):
        def __getattr__(self, name):
            return lambda *_: done.append(name)

    class DefaultTrainer:
        def __init__(self, cfg):
            self.model = self.build_model(cfg)

        @classmethod
        def build_model(cls, cfg):
            return types.SimpleNamespace(
                roi_heads=types.SimpleNamespace(res5=torch.nn.Sequential(torch.nn.Identity())), device="cpu")

        def resume_or_load(self, resume):
            done.append(("load", resume))

        def train(self):
            return self.model

    config = Config(MODEL=types.SimpleNamespace(RESNETS=types.SimpleNamespace(RES2_OUT_CHANNELS=256, NORM="BN")))
    for name, members in {
        "": {}, ".checkpoint": {"DetectionCheckpointer": None}, ".config": {"get_cfg": lambda: config},
        ".engine": {"DefaultTrainer": DefaultTrainer, "default_setup": lambda *_: None},
        ".evaluation": {"PascalVOCDetectionEvaluator": None},
        ".layers": {"get_norm": lambda norm, channels: torch.nn.BatchNorm2d(channels)},
    }.items():
        monkeypatch.setitem(sys.modules, f"detectron2{name}", types.SimpleNamespace(**members))
    options = types.SimpleNamespace(config_file="file", opts=["A", "b"], eval_only=False, resume=True)
    model = detectron2_training.main(options)
    assert [name for name, _ in model.roi_heads.res5.named_children()] == ["0", "norm"]
    assert model.roi_heads.res5.norm.num_features == 2048
    assert done == ["merge_from_file", "merge_from_list", "freeze", ("load", True)]


@pytest.mark.parametrize("name, options, message", [
    ("resnet18", {}, "my resnet18 is resnet18, whose blocks are not those .*bottlenecks"),
    ("vit_tiny_patch16_224", {}, "which this recipe of Detectron2 does not have: give a checkpoint of resnet50"),
    ("resnet50", {"stem_type": "deep"}, "resnet50 with stem_type deep, which Detectron2 does not build"),
])
def test_refused(tmp_path, name, options, message):
    with pytest.raises(UserError, match=message):
        DETECTION().measure(stand_in(name, **options), None, tmp_path, 0)
    assert not list(tmp_path.iterdir())


def test_mistakes():
    with pytest.raises(UserError, match="detection.gpus is 3"):
        DETECTION(gpus=3)


def test_random_weights_say_their_options():
    """So that they can be exported as those of a checkpoint."""
    model = Features(Subject("random:resnet10t"), FeatureConfig(), torch.device("cpu")).model
    assert model.pretrained_cfg["options"] == {} and model.pretrained_cfg["architecture"] == "resnet10t"


def test_a_table_without_figures(programs, monkeypatch):
    """Nothing but this protocol: a table with a row and no columns, in every notation, and a report."""

    def write(self, features, data, folder, seed):
        (folder / "README.md").write_text("how to")
        return Finding({}, files=[(folder / "README.md", "how to")])

    monkeypatch.setattr(DETECTION, "measure", write)
    done = programs.call("pretrain.evaluate", "--checkpoint=[random:resnet10t]", "--tasks=[detection]", "--output=out")
    assert done.code == 0, done.err
    assert done.out.splitlines()[1].startswith("Checkpoint") and "random resnet10t" in done.out
    assert "how to" in (programs.folder / "out" / "report.html").read_text()
    assert json.loads((programs.folder / "out" / "results.json").read_text())["measurements"][0]["metrics"] == {}
    for notation in ("markdown", "latex"):
        assert programs.call("pretrain.evaluate", "compare", "out", f"--{notation}=table").code == 0
        assert "random resnet10t" in (programs.folder / "table").read_text()


def test_the_rest_is_measured_all_the_same(programs):
    done = programs.call("pretrain.evaluate", "--checkpoint=[random:test_resnet]", "--tasks=[detection, view_iou]",
                         "--view_iou.draws=20", "--output=out")
    assert done.error.startswith("detection: random test_resnet is test_resnet, which this recipe")
    known = json.loads((programs.folder / "out" / "results.json").read_text())["measurements"]
    assert [measurement["protocol"] for measurement in known] == ["view_iou"] and "view IoU [%]" in done.out
    assert len(list((programs.folder / "out" / "measurements").iterdir())) == 1
