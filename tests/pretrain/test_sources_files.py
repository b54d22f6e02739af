"""Sources of plain files: the kept list of a folder, published layouts, lists, names, rights, links."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.errors import UserError
from harness.files import cache_folder
from harness.images import UnreadableImage, image_files
from pretrain.crops import MultiCrop
from pretrain.sources import SOURCES, _listing
from pretrain.sources.base import Paths
from pretrain.views import Views


def photograph(path, mode="RGB"):
    """A small image with many colours."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    pixels = np.random.default_rng(len(str(path))).integers(0, 255, (9, 8, 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


def fill(root, *names):
    for name in names:
        photograph(os.path.join(root, name))
    return root


def names(source):
    return [source.name(number) for number in range(len(source))]


def build(name, root, **options):
    return SOURCES.get(name)(root=str(root), **options)


@pytest.fixture
def listed(monkeypatch):
    """Folders that are listed, now that every change is taken to be long ago."""
    found, scan = [], os.scandir
    monkeypatch.setattr(_listing, "SETTLED", -60)
    monkeypatch.setattr(_listing.os, "scandir", lambda path: found.append(str(path)) or scan(path))
    return found


# -- the kept list ----------------------------------------------------------------------------------


def test_only_folders_that_changed_are_listed_again(tmp_path, listed):
    fill(tmp_path, "a/1.png", "a/b/2.png", "c/3.png", "4.png")

    def listing():
        listed.clear()
        paths, remarks = _listing.list_images(tmp_path)
        assert list(paths) == image_files(tmp_path) and not remarks
        return sorted(os.path.relpath(folder, tmp_path) for folder in set(listed) if str(tmp_path) in folder)

    def changed(change):
        listed.clear()
        change()
        paths, _ = _listing.list_images(tmp_path)
        again = sorted(os.path.relpath(folder, tmp_path) for folder in listed)
        assert list(paths) == image_files(tmp_path)
        listed.clear()
        _listing.list_images(tmp_path)
        assert listed == []
        return again

    _listing.list_images(tmp_path)
    assert len(listed) == 4
    assert changed(lambda: None) == []
    assert changed(lambda: photograph(tmp_path / "a/b/new.png")) == ["a/b"]
    assert changed(lambda: (tmp_path / "c/3.png").unlink()) == ["c"]
    assert changed(lambda: (tmp_path / "a/1.png").rename(tmp_path / "a/one.png")) == ["a"]
    assert changed(lambda: photograph(tmp_path / "a/b/d/5.png")) == ["a/b", "a/b/d"]
    assert changed(lambda: (tmp_path / "a/b").rename(tmp_path / "c/moved")) == ["a", "c", "c/moved", "c/moved/d"]
    before = os.stat(tmp_path / "c")
    photograph(tmp_path / "c/6.png")
    os.utime(tmp_path / "c", ns=(before.st_atime_ns, before.st_mtime_ns))  # as tar and rsync do
    assert changed(lambda: None) == ["c"]


def test_a_folder_that_changed_a_moment_ago_is_listed_again(tmp_path):
    """Another change within the clock's step would leave no trace in its times."""
    fill(tmp_path, "a/1.png")
    _listing.list_images(tmp_path)
    found, scan = [], os.scandir
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_listing.os, "scandir", lambda path: found.append(path) or scan(path))
        _listing.list_images(tmp_path)
    assert len(found) == 2


def test_a_damaged_list_is_made_again(tmp_path, listed):
    fill(tmp_path, "a/1.png", "2.png")
    folder = cache_folder() / "indices"
    before = set(folder.glob("*.npz"))
    build("folder", tmp_path)
    [path] = set(folder.glob("*.npz")) - before
    whole = path.read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"nothing like it"):
        path.write_bytes(content)
        assert names(build("folder", tmp_path)) == ["2.png", "a/1.png"]
        assert path.read_bytes() not in (content, b"")


def test_where_nothing_can_be_kept_the_folder_is_listed_every_time(tmp_path, monkeypatch, capsys):
    fill(tmp_path / "images", "a/1.png")
    (tmp_path / "cache").write_text("a file, not a folder")
    monkeypatch.setenv("TASKLIFT_CACHE", str(tmp_path / "cache"))
    assert len(build("folder", tmp_path / "images")) == 1
    assert "not kept for the next start" in capsys.readouterr().err


def test_paths_in_one_block_of_memory():
    strings = ["a", "ü/ß.png", "", "b\udcff.png", "two\nlines.png"]
    paths = Paths(strings)
    again = Paths.from_arrays(*paths.arrays())
    assert list(paths) == list(again) == [again[number] for number in range(5)] == strings


# -- odd trees --------------------------------------------------------------------------------------


def test_links_are_followed_and_loops_are_not(tmp_path, listed):
    fill(tmp_path / "root", "a/1.png", "z/b/2.png")
    fill(tmp_path / "elsewhere", "3.png")
    root = tmp_path / "root"
    (root / "a/up").symlink_to("..")
    (root / "a/itself").symlink_to("itself")
    (root / "a/across").symlink_to("../z")
    (root / "out").symlink_to(tmp_path / "elsewhere")
    (root / "file.png").symlink_to("a/1.png")
    expected = ["a/1.png", "file.png", "out/3.png", "z/b/2.png"]
    assert names(build("folder", root)) == expected == names(build("folder", root))
    (root / "z").rename(tmp_path / "z")
    (root / "a/across").unlink()
    (root / "a/across").symlink_to(tmp_path / "z")
    assert "a/across/b/2.png" in names(build("folder", root))


def test_the_other_way_to_a_folder_counts_when_the_first_goes(tmp_path, listed):
    fill(tmp_path / "root", "b/1.png")
    fill(tmp_path / "there", "2.png")
    for place in ("a", "b/link"):
        (tmp_path / "root" / place).symlink_to(tmp_path / "there")
    assert names(build("folder", tmp_path / "root")) == ["a/2.png", "b/1.png"]
    (tmp_path / "root/a").unlink()
    assert names(build("folder", tmp_path / "root")) == ["b/1.png", "b/link/2.png"]


def test_a_disk_that_is_mounted_later_is_found(tmp_path, listed):
    fill(tmp_path / "root", "1.png")
    (tmp_path / "root/disk").symlink_to(tmp_path / "mount")
    assert len(build("folder", tmp_path / "root")) == 1
    fill(tmp_path / "mount", "2.png")
    assert names(build("folder", tmp_path / "root")) == ["1.png", "disk/2.png"]


def test_names_of_all_kinds(tmp_path, listed):
    odd = ["ü/ß ñ.png", "日本/写真.png", "🙂.png", " lead.png", "new\nline.png", "-dash.png", "l\u2028sep.png"]
    fill(tmp_path, *odd)
    photograph(os.path.join(os.fsencode(tmp_path), b"latin-\xe9.png"))
    source = build("folder", tmp_path)
    assert names(source) == sorted([*odd, "latin-\udce9.png"]) == names(build("folder", tmp_path))
    assert all(source.open(number).size == (8, 9) for number in range(len(source)))
    assert source.fingerprint() == build("folder", tmp_path).fingerprint()


@pytest.fixture
def nobody(monkeypatch):
    """A folder to which the user's rights apply, also when the tests are run by root."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        fill(folder, "open/1.png", "shut/2.png", "open/secret.png")
        os.mkdir(f"{folder}/cache", 0o777)
        os.chmod(f"{folder}/cache", 0o777)
        monkeypatch.setenv("TASKLIFT_CACHE", f"{folder}/cache")
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            yield Path(folder), (lambda path, mode: _as_owner(root, Path(folder) / path, mode))
        finally:
            if root:
                os.seteuid(0)
            os.chmod(f"{folder}/shut", 0o755)


def _as_owner(root, path, mode):
    if root:
        os.seteuid(0)
    os.chmod(path, mode)
    if root:
        os.seteuid(65534)


def test_what_the_user_may_not_read(nobody):
    folder, chmod = nobody
    chmod("shut", 0)
    chmod("open/secret.png", 0)
    for _ in range(2):
        source = build("folder", folder)
        assert names(source) == ["open/1.png", "open/secret.png"]
        assert source.remarks() == [f"left out what cannot be read: {folder}/shut (Permission denied)"]
    with pytest.raises(UnreadableImage, match="open/secret.png: .*Permission denied"):
        source.open(1)
    assert Views(source, MultiCrop(8, 4, 1))[0, 1]["index"] == 0
    for root in (folder / "shut", folder / "shut" / "below"):
        with pytest.raises(UserError, match="the folder .*shut.* (cannot be read|cannot be reached|does not exist)"):
            build("folder", root)
    with pytest.raises(UserError, match="cannot be read"):
        build("imagenet", folder / "shut")
    with pytest.raises(UserError, match="cannot read the shard .*secret.png: Permission denied"):
        SOURCES.get("shards")(shards=str(folder / "open" / "secret.png"))
    chmod("shut", 0o755)
    assert names(build("folder", folder)) == ["open/1.png", "open/secret.png", "shut/2.png"]


# -- published layouts ------------------------------------------------------------------------------


@pytest.mark.parametrize("above", ["", "images", "coco", "coco/images"])
def test_coco(tmp_path, above):
    base = tmp_path / above
    fill(base, "train2017/000000000009.png", "train2017/000000000025.png", "val2017/1.png", "unlabeled2017/7.png",
         "annotations/no.png")
    source = build("coco", tmp_path)
    train = ["train2017/000000000009.png", "train2017/000000000025.png"]
    assert names(source) == train and source.label(0) is None
    assert source.remarks() == ["COCO train2017 was published with 118287 images, and 2 are there"]
    assert names(build("coco", base / "train2017")) == train
    assert build("coco", base / "train2017").fingerprint() == source.fingerprint()
    both = build("coco", tmp_path, splits=("train2017", "unlabeled2017"))
    assert names(both) == [*train, "unlabeled2017/7.png"] and both.fingerprint() != source.fingerprint()


@pytest.mark.parametrize("above, root", [("train", ""), ("train", "train"), ("ILSVRC/Data/CLS-LOC/train", "")])
def test_imagenet(tmp_path, above, root):
    fill(tmp_path / above, "n02084071/n02084071_1.png", "n02084071/n02084071_7.png", "n01440764/n01440764_3.png",
         "extra/1.png")
    source = build("imagenet", tmp_path / root)
    assert names(source) == ["n01440764/n01440764_3.png", "n02084071/n02084071_1.png", "n02084071/n02084071_7.png"]
    assert source.classes == ["n01440764", "n02084071"] and source.labels().tolist() == [0, 1, 1]
    assert source.label(2) == 1 and source.remarks() == [] and source.fingerprint().startswith("imagenet-3-")


@pytest.mark.parametrize("folders", [("train",), ("train_0", "train_f"), ("images/train",)])
def test_openimages(tmp_path, folders):
    for number, folder in enumerate(folders):
        fill(tmp_path, f"{folder}/000{number}.png", f"{folder}/data/0.png")
    fill(tmp_path, "validation/1.png", "train_x/1.png")
    assert len(build("openimages", tmp_path)) == 2 * len(folders)


@pytest.mark.parametrize("above", ["bdd100k/images/100k", "images/100k", "100k", ""])
def test_bdd100k(tmp_path, above):
    fill(tmp_path / above, "train/a.png", "train/trainA/b.png", "val/c.png", "test/d.png")
    source = build("bdd100k", tmp_path)
    assert names(source) == ["test/d.png", "train/a.png", "train/trainA/b.png"] and len(source.remarks()) == 2
    assert names(build("bdd100k", tmp_path, splits=("val",))) == ["val/c.png"]


@pytest.mark.parametrize("name", ["coco", "imagenet", "openimages", "bdd100k"])
def test_another_layout_is_named(tmp_path, name):
    with pytest.raises(UserError, match="is not laid out as published: expected .*train.* it holds nothing"):
        build(name, tmp_path)
    (tmp_path / "train2017.zip").touch()
    with pytest.raises(UserError, match="it holds train2017.zip; unpack the archives first"):
        build(name, tmp_path)
    folder = {"coco": "train2017", "imagenet": "train/n00000001", "bdd100k": "val"}.get(name, "train")
    (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(UserError, match="no images in"):
        build(name, tmp_path, **({"splits": ("val",)} if name == "bdd100k" else {}))
    if name in ("coco", "bdd100k"):
        with pytest.raises(UserError, match="data.splits is empty"):
            build(name, tmp_path, splits=())


@pytest.mark.parametrize("mode, suffix", [("L", "png"), ("CMYK", "jpg"), ("RGBA", "png"), ("LA", "png")])
def test_images_of_every_mode(tmp_path, mode, suffix):
    photograph(tmp_path / f"train/n01440764/1.{suffix}", mode)
    assert build("imagenet", tmp_path).open(0).mode == "RGB"


def test_a_folder_of_shards_is_told_apart(tmp_path):
    (tmp_path / "train-0000.tar").touch()
    with pytest.raises(UserError, match="no images but 1 × .tar: use --data.name shards"):
        build("folder", tmp_path)


# -- lists ------------------------------------------------------------------------------------------


def test_a_list_from_anywhere(tmp_path):
    odd = ["a b.png", "n1/ß.png", "l\u2028sep\x0b.png", "n2/x.png"]
    fill(tmp_path, *odd)
    photograph(os.path.join(os.fsencode(tmp_path), b"\xe9.png"))
    lines = "\r\n".join([*odd, "", "\t", str(tmp_path / "a b.png"), "\udce9.png"])
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbf" + os.fsencode(lines))
    source = SOURCES.get("list")(manifest=str(tmp_path / "list.txt"))
    assert names(source) == [*odd, str(tmp_path / "a b.png"), "\udce9.png"]
    assert all(source.open(number).size == (8, 9) for number in range(len(source)))
    (tmp_path / "two.txt").write_text("n2/x.png\nn1/ß.png\n")
    labelled = SOURCES.get("list")(manifest=str(tmp_path / "two.txt"), labels="folders")
    assert labelled.labels().tolist() == [1, 0] and labelled.fingerprint().startswith("list-2-")
    (tmp_path / "binary.txt").write_bytes(bytes(range(256)) * 40)
    with pytest.raises(UserError, match="there is no file"):
        SOURCES.get("list")(manifest=str(tmp_path / "binary.txt"))
