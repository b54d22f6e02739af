"""``python -m transfer.data``."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from accelerate import Accelerator
from PIL import Image

from scenes.export import LAYOUTS, export
from transfer.data import DATASETS, refuge
from transfer.data._spreadsheet import read_sheet
from transfer.engine import Transfer

REPOSITORY = Path(__file__).resolve().parents[3]
MODULE = "transfer.data.__main__"


def test_export_and_check(programs):
    small = ("--size", "24", "32", "--train", "3", "--val", "2")
    done = programs.call(MODULE, "export-scenes", "--as", "pascal", "out", *small)
    assert done.code == 0 and "wrote out" in done.out and "normals" in done.out
    done = programs.call(MODULE, "check", "pascal", "out", "--all", "--samples", "3")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].split() == ["train", "test"] and lines[1].split() == ["samples", "3", "2"]
    assert any(line.startswith("semseg, 21 classes") and line.split()[-2:] == ["3", "2"] for line in lines)
    assert "published with 4998" in done.out and lines[-1] == "complete, though not as published"
    with Image.open(programs.folder / "check_pascal.png") as picture:
        assert picture.size[0] > 5 * picture.size[1] / 3


def test_what_is_missing_is_named(programs):
    programs.call(MODULE, "export-scenes", "--as", "nyud", "out", "--size", "16", "16", "--train", "3", "--val", "1")
    (programs.folder / "out" / "depth" / "00002.npy").unlink()
    done = programs.call(MODULE, "check", "nyud", "out", "--samples", "0")
    assert done.code == 1 and "depth/00002.npy" in done.out and done.out.splitlines()[-1] == "incomplete"
    for name in ("00001", "00003"):
        (programs.folder / "out" / "depth" / f"{name}.npy").unlink()
    done = programs.call(MODULE, "check", "nyud", "out", "--samples", "0")
    assert done.code == 1 and "3 of 3 labels of task depth" in done.out


@pytest.mark.parametrize(("arguments", "message"), [
    (("check", "nyud", "nothing"), "not there"),
    (("check", "nyuud", "x"), "did you mean 'nyud'"),
    (("check", "nyud", ".", "--options", "{val_cont: 3}"), "did you mean 'val_count'"),
    (("check", "nyud", ".", "--options", "{"), "not YAML"),
    (("where", "nothing"), "unknown data set"),
    (("export-scenes", "--as", "nothing", "x"), "unknown layout 'nothing': choose"),
    (("export-scenes", "--as", "emnist", "x"), "unknown layout 'emnist': choose"),
    (("export-scenes", "--as", "nyuud", "x"), "did you mean 'nyud'"),
])
def test_mistakes_are_one_line(programs, arguments, message):
    assert message in programs.call(MODULE, *arguments).error


def test_layouts_and_their_splits_are_told(programs):
    done = programs.call(MODULE, "export-scenes", "--help")
    lines = [line.split() for line in done.out.splitlines()]
    assert done.code == 0 and ["nyud", "96×128", "train", "8,", "val", "4"] in lines
    assert {line[0] for line in lines if line} >= set(LAYOUTS.names())
    done = programs.call(MODULE, "export-scenes", "--as=nyud", "out", "--size", "16", "16", "--train=1", "--test=3")
    assert done.code == 0 and "layout nyud has no split test (it has train, val): --test is left out" in done.out


def test_where_and_list(programs):
    listed = programs.call(MODULE, "list").out
    for name in DATASETS.names():
        done = programs.call(MODULE, "where", name)
        assert done.code == 0 and name in listed
        about = DATASETS.get(name).about
        assert about is None or all(part in done.out for part in (about.url, about.licence, about.tree))
    lines = listed.splitlines()
    nyud = next(line for line in lines if line.startswith("nyud "))
    assert re.search(r"  train 795, test 654 +semseg, depth, normals, edge$", nyud)
    ours = {name: DATASETS.get(name).holds for name in DATASETS.names()
            if DATASETS.get(name).__module__.startswith("transfer.data")}  # and not what other tests registered
    starts = {line.index(ours[name]) for name, line in zip(DATASETS.names(), lines, strict=True) if name in ours}
    assert len(starts) == 1


def test_what_tells_of_data_sets_does_not_wait_for_torch():
    code = "import sys, transfer.data.__main__ as m; m.DATASETS.names(); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["nyud", "pascal", "cityscapes", "refuge", "taskonomy", "voc_segmentation",
                                  "scenes", "multimnist", "mnist_parity", "cifar100_hierarchy"])
def test_listed_tasks_are_those_of_the_data_set(tmp_path, name):
    kind = DATASETS.get(name)
    data = kind() if name == "scenes" else kind(root=str(export(name, tmp_path / name, size=(32, 32))))
    assert set(kind.holds.split(", ")) == set(data.labels)


def test_the_built_in_scenes(programs):
    few = "{train_count: 2, val_count: 1, test_count: 1, size: 48}"
    done = programs.call(MODULE, "check", "scenes", "--options", few)
    assert done.code == 0 and done.out.splitlines()[-1] == "complete"


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A small table of the built-in scenes and what it names."""
    return export("manifest", tmp_path_factory.mktemp("check") / "table", {"train": 3, "val": 1, "test": 1}, (24, 32))


@pytest.fixture
def place(table, tmp_path):
    """A copy to change."""
    return shutil.copytree(table, tmp_path / "table")


def checked(programs, place, *options, columns="tasks.json"):
    return programs.call(MODULE, "check", "manifest", str(place / "samples.csv"), "--samples=0",
                         f"--options={place / columns}", *options)


def test_labels_without_a_known_pixel_are_named(programs, place):
    done = checked(programs, place, "--all")
    assert done.code == 0 and "known" not in done.out, done.out
    (place / "depth" / "train_0000.png").unlink()
    np.save(place / "depth" / "train_0000.npy", np.full((24, 32), np.nan, np.float32))
    text = (place / "samples.csv").read_text()
    (place / "samples.csv").write_text(text.replace("depth/train_0000.png", "depth/train_0000.npy"))
    assert "known" not in checked(programs, place).out
    done = checked(programs, place, "--all")
    assert "- 1 of 2 labels of task depth in split train have no known pixel: depth/train_0000.npy" in done.out
    assert done.out.splitlines()[-1] == "complete, with what is said above"


def test_tasks_without_a_label_in_a_split_are_named(programs, place):
    (place / "samples.csv").write_text("".join(
        f"{line},{cell}\n" for line, cell in zip((place / "samples.csv").read_text().splitlines(),
                                                 ("spot", "3;4", "", "", "", ""), strict=True)))
    columns = json.loads((place / "tasks.json").read_text()) | {"spot": {"task": "localization"}}
    (place / "tasks.json").write_text(json.dumps(columns))
    done = checked(programs, place)
    assert done.code == 0 and "spot: no label in the test split: there will be no figure for them" in done.out
    assert next(line for line in done.out.splitlines() if line.startswith("spot")).split()[-3:] == ["1", "0", "0"]
    data = DATASETS.get("manifest")(file=str(place / "samples.csv"), tasks=columns)
    tasks = data.choose(["depth", "spot"])
    config = SimpleNamespace(evaluation=SimpleNamespace(split="test"), tasks=["depth", "spot"])
    run = SimpleNamespace(config=config, world=Accelerator(cpu=True), data=data, tasks=tasks,
                          train_split=data.split("train"))
    assert Transfer.remarks(run) == ["spot: no label in the test split: there will be no figure for it"]


def test_a_task_without_any_label_has_zeros(programs, tmp_path):
    export("nyud", tmp_path / "out", {"train": 2, "val": 1}, (16, 16))
    shutil.rmtree(tmp_path / "out" / "edge")
    done = programs.call(MODULE, "check", "nyud", "out", "--samples=0")
    assert next(line for line in done.out.splitlines() if line.startswith("edge")).split() == ["edge", "0", "0"]
    assert "split test was published with 654 samples (as val), and 1 are there" in done.out


@pytest.mark.parametrize("kind", ["columns", "options", "run"])
def test_options_from_a_file(programs, place, kind):
    columns = json.loads((place / "tasks.json").read_text())
    content = {"columns": columns, "options": {"tasks": columns, "size": 16},
               "run": {"data": {"name": "manifest", "file": "elsewhere.csv", "tasks": columns}, "tasks": ["semseg"]}}
    (place / "own.yaml").write_text(yaml.safe_dump(content[kind], sort_keys=False))
    assert checked(programs, place, columns="own.yaml").code == 0
    error = programs.call(MODULE, "check", "nyud", ".", f"--options={place / 'own.yaml'}").error
    assert ("another data set than nyud" if kind == "run" else "has no option") in error


def test_the_documented_table_is_checked_as_printed(programs, tmp_path):
    text = (REPOSITORY / "docs" / "data.md").read_text().split("## Your own data")[1].split("\n## ")[0]
    blocks = [textwrap.dedent(block) for block in re.findall(r"(?:^    .*\n|^\n(?=    ))+", text, re.MULTILINE)]
    csv, run, command = (next(block for block in blocks if word in block) for word in ("image,", "data:", "check "))
    folder = tmp_path / "my_data"
    for kind in ("photos", "masks", "depth"):
        (folder / kind).mkdir(parents=True)
    (folder / "samples.csv").write_text(csv.strip() + "\n")
    (folder / "run.yaml").write_text(run)
    for number in (1, 2, 3):
        Image.new("RGB", (160, 100)).save(folder / f"photos/{number}.jpg")
        Image.new("L", (160, 100), number).save(folder / f"masks/{number}.png")
        Image.new("I;16", (160, 100), 1000).save(folder / f"depth/{number}.png")
    done = programs.call(MODULE, *command.strip().removeprefix("python -m transfer.data ").split(), "--all")
    assert done.code == 0 and "semseg, 3 classes" in done.out, done.out + done.err


@pytest.mark.parametrize(("arguments", "message"), [
    (("check", "manifest"), "give the table with check manifest FILE.csv"),
    (("check", "nyud"), "give its folder with check NAME DIR"),
    (("check", "manifest", "x.csv"), "manifest: tasks is empty: say what each column is, as --options '{tasks: {"),
])
def test_mistakes_are_told_in_the_words_of_the_command(programs, arguments, message):
    error = programs.call(MODULE, *arguments).error
    assert message in error and "data." not in error.replace("transfer.data", "")


def test_rows_that_a_table_lacks_are_named(programs, tmp_path, monkeypatch):
    export("refuge", tmp_path / "out", {"train": 2, "val": 2, "test": 2}, (32, 32))
    assert programs.call(MODULE, "check", "refuge", "out", "--samples=0").code == 0
    monkeypatch.setattr(refuge, "read_sheet", lambda path: read_sheet(path)[:-1 if "locations" in path.name else None])
    done = programs.call(MODULE, "check", "refuge", "out", "--samples=0")
    assert done.code == 1 and "V0002.jpg" in done.out and done.out.splitlines()[-1] == "incomplete"
    assert "- 1 rows of the table of split val are missing, with the labels of fovea and glaucoma" in done.out
