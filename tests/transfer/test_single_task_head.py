"""The head of the single-task networks that architectures without a choice of head are compared with."""

from __future__ import annotations

import json

import pytest
import yaml

from harness.config import as_dict, differences, identity, load
from mtl_heads import architectures, build_model
from mtl_heads.registry import ARCHITECTURES
from transfer.baselines import single_task_config
from transfer.config import TransferConfig

TINY = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}
VIT = ["--model.backbone=vit_tiny_patch16_224", "--model.backbone_options={embed_dim: 16, depth: 3, num_heads: 2}"]


def options_of(*arguments: str) -> dict:
    return single_task_config(load(TransferConfig, list(arguments)), "depth").model.options


@pytest.mark.parametrize("arguments, head", [
    (["--model.name=mti_net"], "hrnet"),
    (["--model.name=mti_net", "--model.neck=fpn"], "panoptic_fpn"),
    (["--model.name=pad_net"], "hrnet"),
    (["--model.name=pad_net", "--model.output_stride=8"], "deeplab"),
    (["--model.name=pad_net", "--model.output_stride=8", "--model.features=all"], "hrnet"),
    (["--model.name=pap_net", "--model.features=main"], "deeplab"),
    (["--model.name=pap_net", "--model.features=main", "--model.neck=fpn"], "panoptic_fpn"),
    (["--model.name=jtrl"], "hrnet"),
    (["--model.name=unet"], "unet"),
    (["--model.name=mtan_segnet", "--model.backbone=segnet"], "segnet"),
    (["--model.name=baseline"], "deeplab"),
    (["--model.name=mtan", "--model.head=fcn"], "fcn"),
    (["--model.name=mti_net", "--baseline_head=psp"], "psp"),
    (["--model.name=pad_net", *VIT], "deeplab"),
    (["--model.name=pap_net", *VIT], "deeplab"),
    (["--model.name=mti_net", "--model.scales=1", *VIT], "deeplab"),
    (["--model.name=pad_net", "--model.neck=simple_pyramid", *VIT], "hrnet"),
    (["--model.name=pad_net", "--baseline_head=fcn", *VIT], "fcn"),
    (["--model.name=mti_net", "--model.scales=1"], "hrnet"),
    (["--model.name=unet", "--model.backbone=lenet", "--model.backbone_options={hidden: 0}"], "unet"),
    (["--model.name=baseline", "--model.head=hrnet", *VIT], "hrnet"),
    (["--model.name=mtan", "--model.head=fcn", "--baseline_head=psp"], "psp"),
])
def test_head(arguments, head):
    assert options_of(*arguments)["head"] == head


def test_other_options_are_kept():
    found = options_of("--model.name=pad_net", "--model.neck=fpn", "--model.neck_options={channels: 32}",
                       "--model.output_stride=16")
    assert found == {"head": "panoptic_fpn", "head_options": None, "neck": "fpn", "neck_options": {"channels": 32},
                     "output_stride": 16}
    kept = options_of("--model.name=nddr", "--model.head=deeplab", "--model.head_options={width: 16}")
    assert kept["head_options"] == {"width": 16}
    other = options_of("--model.name=nddr", "--model.head_options={width: 16}", "--baseline_head=fcn")
    assert other["head_options"] is None


@pytest.mark.parametrize("name", [name for name in architectures() if "segnet" not in name])
def test_the_counterpart_can_be_built(name):
    backbone = {"backbone_options": TINY}
    single = build_model("single_task", "resnet18", {"a": 2}, **backbone,
                         **ARCHITECTURES.get(name).single_task_options({}))
    assert single.tasks == ["a"]


def test_runs_state_it(programs):
    options = ["--model.name=pad_net", "--model.channels=8", "--tasks=[semseg, depth]", "--epochs=1", "--baseline=auto"]
    assert programs.main("transfer", "--name=own", *options).code == 0
    own = json.loads((programs.folder / "outputs/own/results.json").read_text())
    assert own["head"] is None and own["single_task_head"] == "hrnet"
    assert "head hrnet" in (programs.folder / "outputs/own/report.html").read_text()
    assert programs.main("transfer", "--name=other", *options, "--baseline_head=linear").code == 0
    other = json.loads((programs.folder / "outputs/other/results.json").read_text())
    assert other["single_task_head"] == "linear" and other["metrics"] == own["metrics"]
    assert other["single_task"] != own["single_task"]
    assert other["relative"]["parameters"] > own["relative"]["parameters"]
    singles = [path for path in (programs.folder / "outputs/single_task").iterdir() if path.is_dir()]
    heads = [json.loads((path / "results.json").read_text())["head"] for path in singles]
    assert sorted(heads) == ["hrnet", "hrnet", "linear", "linear"]

    compared = programs.call("transfer.compare", "own", "other", "--report=page.html")
    assert compared.code == 0 and compared.out.count("single_task") == 2, compared.out
    assert " *</td>" in (programs.folder / "page.html").read_text()


def test_features_of_one_scale(programs):
    """The counterpart of an architecture of several scales takes a head that one is enough for."""
    options = ["--model.name=pad_net", "--model.channels=8", "--tasks=[depth]", "--epochs=1", "--baseline=auto", *VIT]
    done = programs.main("transfer", "--name=vit", *options)
    assert done.code == 0, done.err
    results = json.loads((programs.folder / "outputs/vit/results.json").read_text())
    assert results["single_task_head"] == "deeplab" and results["delta_mtl"] is not None
    told = "single-task networks have head 'deeplab': 'hrnet', which 'pad_net' is compared with elsewhere"
    assert done.out.count(told) == 1
    again = programs.main("transfer", "--name=again", *options, "--baseline_head=fcn")
    assert again.code == 0 and told not in again.out


def test_choosing_the_head_makes_no_random_numbers():
    import torch

    from transfer import network

    network._pyramid.cache_clear()
    before = torch.get_rng_state()
    assert [options_of("--model.name=pad_net", *more)["head"] for more in ([], VIT)] == ["hrnet", "deeplab"]
    assert torch.equal(before, torch.get_rng_state())


def test_a_head_that_does_not_fit_is_told_before_anything_is_trained(programs):
    error = programs.main("transfer", "--output=run", "--model.name=pad_net", "--model.channels=8", "--tasks=[depth]",
                          "--baseline=auto", "--baseline_head=hrnt").error
    assert "head 'hrnt'" in error and "--baseline_head" in error
    assert not (programs.folder / "outputs").exists()


def test_costs_of_the_single_task_networks_come_from_the_ratio():
    from transfer.results import with_singles

    result = {"architecture": "baseline", "dataset": "d", "backbone": "b", "weights": None, "seed": 0,
              "metrics": {"a": {"m": 2.0}}, "primary": {"a": "m"}, "higher_is_better": {"a": True},
              "single_task": {"a": {"m": 1.0}}, "delta_mtl": 100.0, "parameters": 600, "macs": 900,
              "relative": {"parameters": -40.0, "macs": -10.0}}
    first, *rest = with_singles([result, {**result, "architecture": "mtan"}])
    assert len(rest) == 2 and (first["parameters"], first["macs"], first["delta_mtl"]) == (1000, 1000, 0.0)
    assert first["metrics"] == result["single_task"]
    assert with_singles([{**result, "architecture": "single_task"}]) == [{**result, "architecture": "single_task"}]


@pytest.mark.parametrize("model", ["baseline", "mti_net"])
def test_its_configuration_is_written_whole(model, tmp_path):
    """What a run's folder, a sweep and the key of cached networks have of it: options of the backbone too."""
    wide, thin = (single_task_config(load(TransferConfig, [
        f"--model.name={model}", "--model.backbone=resnet18", f"--model.backbone_options={{channels: {channels}}}"]),
        "depth") for channels in ([16, 16, 32, 32], [8, 8, 16, 16]))
    assert as_dict(thin)["model"]["backbone_options"] == {"channels": [8, 8, 16, 16]}
    assert differences(identity(wide), identity(thin)) == [
        "model.backbone_options.channels: [16, 16, 32, 32] -> [8, 8, 16, 16]"]
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(as_dict(thin)))
    assert as_dict(load(TransferConfig, ["--config", str(path)])) == as_dict(thin)
