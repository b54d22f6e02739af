"""``python -m transfer.data``."""

from __future__ import annotations

import pytest
from PIL import Image

from transfer.data import DATASETS

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
    (("export-scenes", "--as", "nothing", "x"), "unknown layout"),
])
def test_mistakes_are_one_line(programs, arguments, message):
    assert message in programs.call(MODULE, *arguments).error


def test_where_and_list(programs):
    listed = programs.call(MODULE, "list").out
    for name in DATASETS.names():
        done = programs.call(MODULE, "where", name)
        assert done.code == 0 and name in listed
        about = DATASETS.get(name).about
        assert about is None or all(part in done.out for part in (about.url, about.licence, about.tree))


def test_the_built_in_scenes(programs):
    few = "{train_count: 2, val_count: 1, test_count: 1, size: 48}"
    done = programs.call(MODULE, "check", "scenes", "--options", few)
    assert done.code == 0 and done.out.splitlines()[-1] == "complete"
