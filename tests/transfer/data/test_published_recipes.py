"""The configurations of published recipes: what they name is there, and nothing is chosen on what is reported."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mtl_heads.registry import ARCHITECTURES
from scenes.export import LAYOUTS, export
from transfer.data import DATASETS
from transfer.strategies.registry import BALANCES, PARTITIONS, SCHEDULES

FOLDER = Path(__file__).resolve().parents[3] / "configs" / "transfer"
NAMES = ("nyud", "pascal", "cityscapes", "nyuv2_npy", "cityscapes_npy", "celeba", "taskonomy", "cifar100_hierarchy",
         "refuge", "hrf_av", "multimnist", "mnist_parity", "voc_segmentation")


@pytest.fixture
def root(request, tmp_path):
    name = request.getfixturevalue("name")
    counts = {split: 3 for split in LAYOUTS.get(name).splits} | ({"train": 15} if name == "hrf_av" else {})
    return str(export(name, tmp_path / "data", counts, (32, 32) if name.startswith("cifar") else (16, 16)))


@pytest.mark.parametrize("name", NAMES)
def test_what_recipes_name_is_there(name, root):
    files = sorted((FOLDER / name).glob("*.yaml"))
    assert files
    for file in files:
        recipe = yaml.safe_load(file.read_text())
        options = {**recipe["data"], "root": root, **({"val_count": 1} if name == "mnist_parity" else {})}
        assert options.pop("name") == name, file
        data = DATASETS.get(name)(**options)
        tasks = [*recipe["tasks"], *recipe.get("auxiliary", [])]
        data.choose(tasks, recipe.get("task_options"))
        for registry, part in ((ARCHITECTURES, "model"), (BALANCES, "balance"), (SCHEDULES, "schedule"),
                               (PARTITIONS, "partition")):
            assert part not in recipe or recipe[part]["name"] in registry, file
        assert set(recipe.get("balance", {}).get("weights", {})) <= set(tasks), file
        evaluation = recipe["evaluation"]
        assert evaluation["split"] == "test" and "test" in data.splits, file
        assert evaluation.get("select", "last") == "last" or (evaluation["every"] and "val" in data.splits), file
        if "size" in evaluation:  # stretched to it, so that training must see nothing else
            assert recipe["augmentation"]["fit"] == "stretch", file
            assert recipe["augmentation"]["size"] == evaluation["size"], file
        assert all(len(line) <= 120 for line in file.read_text().splitlines()), file


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_recipes_can_be_built(name, root):
    from harness.config import load
    from transfer.config import TransferConfig
    from transfer.engine import check

    for file in sorted((FOLDER / name).glob("*.yaml")):
        more = ["--data.val_count=1"] if name == "mnist_parity" else []
        check(load(TransferConfig, ["--config", str(file), f"--data.root={root}", *more]))
