"""Image sources: order, names, messages."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from PIL import Image

from harness.errors import UserError
from pretrain.sources import SOURCES
from pretrain.sources.base import Paths


def photograph(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), np.uint8)
    Image.fromarray(array).save(path)
    return array


def test_folder_is_recursive_sorted_and_named(tmp_path):
    for path in ("b/two.png", "a/one.png", "top.png", "b/c/three.png", ".hidden/no.png"):
        photograph(tmp_path / path)
    (tmp_path / "b" / "notes.txt").write_text("no image")
    source = SOURCES.get("folder")(root=str(tmp_path))
    names = [source.name(i) for i in range(len(source))]
    assert names == ["a/one.png", "b/c/three.png", "b/two.png", "top.png"]
    assert source.open(0).mode == "RGB" and source.label(0) is None
    labelled = SOURCES.get("folder")(root=str(tmp_path), labels="folders")
    assert [labelled.label(i) for i in range(4)] == [1, 2, 2, 0] == labelled.labels().tolist()
    assert source.labels() is None
    assert pickle.loads(pickle.dumps(source)).name(3) == "top.png"


def test_fingerprint_tells_other_images_not_other_places(tmp_path):
    for root in ("one", "two"):
        photograph(tmp_path / root / "a.png")
        photograph(tmp_path / root / "b.png")
    one, two = (SOURCES.get("folder")(root=str(tmp_path / root)) for root in ("one", "two"))
    assert one.fingerprint() == two.fingerprint()
    photograph(tmp_path / "two" / "c.png")
    assert SOURCES.get("folder")(root=str(tmp_path / "two")).fingerprint() != one.fingerprint()


@pytest.mark.parametrize("name", ["folder", "list"])
def test_options_that_are_missing(name, tmp_path):
    with pytest.raises(UserError, match="not set"):
        SOURCES.get(name)()


def test_folder_messages(tmp_path):
    with pytest.raises(UserError, match="does not exist.*--data.root"):
        SOURCES.get("folder")(root=str(tmp_path / "nowhere"))
    photograph(tmp_path / "file.png")
    with pytest.raises(UserError, match="is a file"):
        SOURCES.get("folder")(root=str(tmp_path / "file.png"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is empty"):
        SOURCES.get("folder")(root=str(tmp_path / "empty"))


@pytest.mark.parametrize("suffix", [".npy", ".txt", ".mat", ".json"])
def test_folder_of_labels_without_images(tmp_path, suffix):
    for number in range(3):
        (tmp_path / f"{number}{suffix}").write_bytes(b"1")
    with pytest.raises(UserError, match=rf"no images.*3 × {suffix}.*labels"):
        SOURCES.get("folder")(root=str(tmp_path))


@pytest.mark.parametrize("mode", ["L", "P", "I;16"])
def test_folder_of_label_maps(tmp_path, mode):
    rng = np.random.default_rng(0)
    for number in range(5):
        labels = rng.integers(0, 40, (20, 20)).astype(np.uint16 if mode == "I;16" else np.uint8)
        labels[0] = 255
        image = Image.fromarray(labels)
        if mode == "P":
            image.putpalette(list(range(256)) * 3)
        image.save(tmp_path / f"{number}.png")
    with pytest.raises(UserError, match="class numbers.*of the images"):
        SOURCES.get("folder")(root=str(tmp_path))
    photograph(tmp_path / "0.png")  # one photograph is enough to believe the user
    assert len(SOURCES.get("folder")(root=str(tmp_path))) == 5


def test_grey_photographs_are_no_label_maps(tmp_path):
    values = np.add.outer(np.arange(100), np.arange(120)).astype(np.uint8)
    Image.fromarray(values).save(tmp_path / "grey.png")
    assert len(SOURCES.get("folder")(root=str(tmp_path))) == 1


def test_list(tmp_path):
    names = ["a b.png", "c/d.png"]
    arrays = {name: photograph(tmp_path / "images" / name, seed) for seed, name in enumerate(names)}
    (tmp_path / "list.txt").write_text("c/d.png\n\n  a b.png  \nc/d.png\n")
    source = SOURCES.get("list")(manifest=str(tmp_path / "list.txt"), root=str(tmp_path / "images"))
    assert [source.name(i) for i in range(len(source))] == ["c/d.png", "a b.png", "c/d.png"]
    assert np.array_equal(np.asarray(source.open(0)), arrays["c/d.png"])
    (tmp_path / "images" / "list.txt").write_text("a b.png")
    beside = SOURCES.get("list")(manifest=str(tmp_path / "images" / "list.txt"))
    assert np.array_equal(np.asarray(beside.open(0)), arrays["a b.png"])


def test_list_messages(tmp_path):
    with pytest.raises(UserError, match="cannot read the list"):
        SOURCES.get("list")(manifest=str(tmp_path / "no.txt"))
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(UserError, match="names no images"):
        SOURCES.get("list")(manifest=str(tmp_path / "empty.txt"))
    (tmp_path / "list.txt").write_text("missing.png")
    with pytest.raises(UserError, match="missing.png.*--data.root"):
        SOURCES.get("list")(manifest=str(tmp_path / "list.txt"), root=str(tmp_path))


def test_scenes():
    from scenes import Scenes
    from scenes.rooms import RENDERER_VERSION

    source = SOURCES.get("scenes")(count=5, size=32)
    assert len(source) == 5 and source.open(2).shape == (32, 32, 3) and source.name(1) == "scene 1"
    assert f"v{RENDERER_VERSION}" in source.fingerprint()
    types = [int(Scenes("pretrain", 5, 32).sample(i)["scene"]) for i in range(5)]
    assert [source.label(i) for i in range(5)] == types == source.labels().tolist()
    assert source.labels().dtype == np.int64


def test_paths_are_packed():
    strings = ["", "a", "ü/ß.png", "tail"]
    paths = Paths(strings)
    assert list(paths) == strings and len(paths) == 4
    assert paths.digest() != Paths(["a", "", "ü/ß.png", "tail"]).digest()
    with pytest.raises(IndexError):
        paths[4]
    assert list(Paths([])) == []


def test_unknown_source_names_the_known():
    with pytest.raises(UserError, match="did you mean 'folder'.*list.*scenes"):
        SOURCES.get("folders")
