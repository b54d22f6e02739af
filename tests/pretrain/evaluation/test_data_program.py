"""``python -m pretrain.evaluate data``, and a measurement on a published set."""

from __future__ import annotations

import json
import shutil

import pytest
from PIL import Image

from pretrain.evaluation.labelled import KINDS, LABELLED

MODULE = "pretrain.evaluate"


def test_where_and_list(programs):
    listed = programs.call(MODULE, "data", "list").out
    assert "trainval 5011, test 4952" in listed
    assert all(set(LABELLED.get(name).holds.split(", ")) <= set(KINDS) for name in LABELLED.names())
    for name in LABELLED.names():
        done = programs.call(MODULE, "data", "where", name)
        assert done.code == 0 and name in listed
        about = LABELLED.get(name).about
        assert about is None or all(part in done.out for part in (about.url, about.licence, about.tree))


@pytest.mark.parametrize(("name", "words"), [
    ("food101", ["6 with 1 to", "train was published with 75750 images, and 8 are there"]),
    ("voc07", ["20 in 0 to", "difficult labels"]),
    ("voc_segmentation", ["masks of 21 classes"]),
])
def test_check(programs, written, name, words):
    done = programs.call(MODULE, "data", "check", name, str(written(name)), "--samples", "3", "--all", "true")
    assert done.code == 0, done.err
    assert all(word in done.out for word in words)
    assert done.out.splitlines()[-1] == "complete, though not as published"
    with Image.open(programs.folder / f"check_{name}.png") as picture:
        assert picture.width > 3 * 128 and picture.height > 2 * 128


def test_check_of_what_is_not_published(programs, written):
    done = programs.call(MODULE, "data", "check", "folder", str(written("folder")), "--samples", "0")
    assert done.code == 0 and done.out.splitlines()[-1] == "complete"
    assert not list(programs.folder.iterdir())
    few = ("--data.train=3", "--data.test=2", "--data.val=1", "--data.size=32", "--data.videos=2", "--data.frames=2")
    done = programs.call(MODULE, "data", "check", "scenes", *few, "--samples", "2")
    assert done.code == 0, done.err
    assert "2 videos of 4 frames" in done.out


def test_damaged_files_are_named(programs, written, tmp_path):
    shutil.copytree(written("voc_segmentation"), tmp_path / "root")
    for number in (1, 4):
        (tmp_path / f"root/VOCdevkit/VOC2012/JPEGImages/2007_00000{number}.jpg").write_bytes(b"no")
    error = programs.call(MODULE, "data", "check", "voc_segmentation", str(tmp_path / "root"), "--all=true").error
    assert "2007_000001.jpg cannot be read" in error and "(1 more cannot be used)" in error


@pytest.mark.parametrize(("arguments", "message"), [
    (("check", "food101", "nothing"), "does not exist"),
    (("check", "fod101"), "did you mean 'food101'"),
    (("check", "sun397", ".", "--data.partitoin=3"), "did you mean '--data.partition'"),
    (("check", "sun397", ".", "--data.partition=first"), "data.partition"),
    (("check", "folder", ".", "--samples=-1"), "samples is -1"),
    (("where", "nothing"), "unknown set of labelled images"),
    (("export-scenes", "--as", "food", "x"), "did you mean 'food101'"),
    (("export-scenes", "--as", "folder", "x", "--train", "1", "--test", "1", "--size", "16", "16"),
     "every class needs an image"),
])
def test_mistakes_are_one_line(programs, arguments, message):
    assert message in programs.call(MODULE, "data", *arguments).error


def test_an_exported_set_is_measured(programs):
    few = ("--size", "32", "32", "--train", "8", "--test", "6")
    done = programs.call(MODULE, "data", "export-scenes", "--as", "food101", "out", *few)
    assert done.code == 0 and "wrote out" in done.out
    done = programs.call(MODULE, "--checkpoint=random:resnet18", "--tasks=[knn]", "--data.name=food101",
                         "--data.root=out", "--knn.k=[3]", "--knn.queries=0", "--knn.points=0", "--features.resize=0",
                         "--features.crop=0", "--threads=1", "--output=ev")
    assert done.code == 0, done.err
    (measured,) = json.loads((programs.folder / "ev/results.json").read_text())["measurements"]
    assert measured["data"] == "food101" and measured["fingerprint"].startswith("food101-")
    assert "split train was published with 75750 images, and 8 are there" in measured["remarks"]
    assert round(measured["metrics"]["top1_k3"] * 6 / 100, 6) in range(7)
