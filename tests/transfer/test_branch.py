"""``python -m transfer.branch`` from its command line to what it leaves."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from scipy.stats import spearmanr

from mtl_heads.trees import group_counts
from transfer.branching.counting import count_trees, count_trees_of

TASKS = ["depth", "scene", "attributes"]
SMALL = [
    "--model.backbone_options={layers: [1, 1, 1, 1], channels: [8, 8, 16, 16]}", "--tasks=[depth, scene, attributes]",
    "--evaluation.panels=1", "--baseline=auto", "--model.name=branched", "--model.head=fcn", "--epochs=1",
    "--loop.log_steps=10",
]  # fmt: skip


def branch(programs, *options, config=None):
    """The program with a tiny configuration that does not start from the demo's."""
    path = programs.folder / "empty.yaml"
    path.write_text("name: null\n")
    return programs.call("transfer.branch", f"--config={path}", *programs.options("transfer"), *SMALL, *options)


def tree_of(record, name):
    return tuple(tuple(map(tuple, level)) for level in record["groupings"][name]["tree"])


def test_search_training_and_comparison(programs):
    finished = branch(programs, "--name=b", "--budget=0.8")
    assert finished.code == 0, finished.err
    folder = programs.folder / "outputs" / "b"
    record = json.loads((folder / "search.json").read_text())
    assert record["exact"] and record["trees"] == count_trees(3, 4) and record["gap"] >= 0
    assert record["groupings"].keys() == {"affinity", "shared", "split", "random", "fafs"}
    for name, found in record["groupings"].items():
        assert found["groups"] == list(group_counts(tree_of(record, name)))
        assert (folder / "figures" / f"tree_{name}.png").stat().st_size > 1000
        if name in ("random", "fafs"):
            assert found["groups"] == record["groupings"]["affinity"]["groups"]
    shares = {name: found["share"]["parameters"] for name, found in record["groupings"].items()}
    assert shares["shared"] < shares["affinity"] <= 0.8 < shares["split"] == 1
    assert record["groupings"]["split"]["clustering_cost"] == 0
    alternatives = count_trees_of(3, record["groupings"]["affinity"]["groups"])
    assert (tree_of(record, "random") == tree_of(record, "affinity")) == (alternatives == 1)
    assert (folder / "figures" / "affinity.png").exists() and "<img" in (folder / "report.html").read_text()

    runs = {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/results.json")}
    singles = sorted((programs.folder / "outputs" / "single_task").glob("*/results.json"))
    assert len(singles) == 3
    total = {key: sum(json.loads(path.read_text())[key] for path in singles) for key in ("parameters", "macs")}
    distinct = {tree_of(record, name) for name in record["groupings"]}
    assert len(runs) == len(distinct) and {"affinity", "shared", "split"} <= runs.keys()
    for name, results in runs.items():
        assert results["architecture"] == "branched" and results["delta_mtl"] is not None
        for key in ("parameters", "macs"):
            assert results[key] / total[key] == pytest.approx(record["groupings"][name]["share"][key])
    whole = json.loads((folder / "results.json").read_text())
    assert whole["metrics"] == runs["affinity"]["metrics"] and whole["branch"]["budget"] == 0.8
    assert "shared" in finished.out and "single-task networks" in finished.out

    check_affinity_by_hand(folder / "affinity.safetensors", singles)

    # again: nothing is trained; a smaller search on the same affinities needs no network at all
    written = {path: path.stat().st_mtime_ns for path in [*singles, *folder.glob("*/results.json")]}
    again = branch(programs, "--name=b", "--budget=0.8")
    assert again.code == 0 and "is finished" in again.out
    assert written == {path: path.stat().st_mtime_ns for path in written}
    only = branch(programs, "--name=c", "--budget=0.6", f"--affinity={folder / 'affinity.safetensors'}",
                  "--tasks=[scene, depth]", "--train=false", "--groupings=[]", "--resource=macs", "--baseline=none")
    assert only.code == 0, only.err
    searched = json.loads((programs.folder / "outputs" / "c" / "search.json").read_text())
    assert searched["tasks"] == ["scene", "depth"] and list(searched["groupings"]) == ["affinity"]
    assert searched["groupings"]["affinity"]["share"]["macs"] <= 0.6
    assert not (programs.folder / "outputs" / "c" / "results.json").exists()
    assert len(list((programs.folder / "outputs" / "single_task").glob("*/results.json"))) == 3
    other = branch(programs, "--name=b", "--budget=0.7")
    assert "belongs to another configuration (budget: 0.8 -> 0.7)" in other.error


def check_affinity_by_hand(path, singles):
    """The affinity from the runs' checkpoints: timm's own features, numpy's Pearson, scipy's Spearman."""
    import timm

    from transfer.data.scenes import ScenesData

    with safe_open(path, "numpy") as file:
        affinity, difficulty = file.get_tensor("affinity"), file.get_tensor("difficulty")
        assert json.loads(file.metadata()["tasks"]) == TASKS
    data = ScenesData(12, 6, 6, 48)
    data.choose(["depth"])
    images = np.stack([sample["image"] for sample in data.split("val")]).astype(np.float32)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    images = torch.from_numpy((images / 255 - mean) / std).permute(0, 3, 1, 2).float()
    rdms = {}
    for single in singles:
        state = torch.load(single.parent / "checkpoints" / "last.pt", weights_only=True)["model"]
        network = timm.create_model("resnet18", features_only=True, layers=[1, 1, 1, 1], channels=[8, 8, 16, 16]).eval()
        prefix = "encoder.backbone."
        network.load_state_dict({key.removeprefix(prefix): value for key, value in state.items()
                                 if key.startswith(prefix)})
        with torch.no_grad():
            features = network(images)[1:]
        rdms[single.parent.name.split("-")[1]] = [1 - np.corrcoef(maps.flatten(1).numpy()) for maps in features]
    upper = np.triu_indices(6, 1)
    assert affinity.shape == (4, 3, 3) and difficulty.shape == (3, 3)
    for (s, first), (t, second), d in itertools.product(enumerate(TASKS), enumerate(TASKS), range(4)):
        expected = spearmanr(rdms[first][d][upper], rdms[second][d][upper]).statistic
        assert affinity[d, s, t] == pytest.approx(expected, abs=0.02)  # near ties change places


@pytest.mark.slow
def test_networks_of_a_share_of_the_samples(programs):
    finished = branch(programs, "--name=s", "--budget=0.9", "--share=0.5", "--train=false", "--groupings=[random]",
                      "--tasks=[depth, scene]", "--baseline=none", "--images=4")
    assert finished.code == 0, finished.err
    runs = sorted((programs.folder / "outputs" / "single_task").glob("*/results.json"))
    assert [json.loads(path.read_text())["dataset"] for path in runs] == ["subset", "subset"]


def test_a_subset_has_a_share_of_the_training_samples(programs):
    from transfer.data.subset import Subset

    data = Subset("scenes", 0.5, 0, {"train_count": 12, "val_count": 6, "test_count": 6, "size": 48})
    data.choose(["depth"])
    whole = data.whole.split("train")
    chosen = [sample["id"] for sample in data.split("train")]
    assert len(chosen) == 6 == len(set(chosen)) and chosen == sorted(chosen)
    assert set(chosen) <= {sample["id"] for sample in whole} and len(data.split("val")) == 6
    other = Subset("scenes", 0.5, 1, {"train_count": 12, "size": 48}).split("train")
    assert chosen != [sample["id"] for sample in other]


def test_mistakes_are_told_before_anything_is_trained(programs):
    for options, message in [
        (["--budget=0.1"], "budget 0.1 is below 0.3"),
        (["--tasks=[depth]"], "one task has nothing to be grouped with"),
        (["--groupings=[afinity]"], "unknown grouping 'afinity' (did you mean 'affinity'?)"),
        (["--held_out=valid"], "held_out: the data set has no split 'valid' (did you mean 'val'?)"),
        (["--model.name=cross_stitch"], "model.name is cross_stitch, and this program builds branched networks"),
        (["--model.tree=[[[depth]]]"], "model.tree is given, and this program searches it"),
        (["--share=0"], "share is 0.0"),
        (["--images=2"], "images is 2"),
        (["--affinity=none.safetensors"], "--affinity: cannot read none.safetensors"),
        (["--affinity=empty.yaml"], "--affinity: empty.yaml is not a file of affinities"),
    ]:
        assert message in branch(programs, "--name=x", "--epochs=3", *options).error
    assert not (programs.folder / "outputs" / "single_task").exists()
