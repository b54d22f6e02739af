"""Shards: every sample once, damaged files, the index, resume."""

from __future__ import annotations

import io
import os
import pickle
import random
import tarfile
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from harness.errors import UserError
from harness.images import UnreadableImage
from harness.sampling import Batches
from pretrain.crops import MultiCrop
from pretrain.shards import main, pack
from pretrain.sources import SOURCES, _shard_index, _tar_index, shards
from pretrain.views import Views, collate

UNEVEN = (5, 1, 9, 4, 7, 2, 3)
"""Images in each of seven shards: 31, which neither three processes nor batches of six divide."""


def encoded(value, mode="RGB", suffix="PNG"):
    """A small picture of one colour that tells which it is."""
    buffer = io.BytesIO()
    Image.new("RGB", (9, 8), (value % 256, value // 256, 77)).convert(mode).save(buffer, suffix)
    return buffer.getvalue()


def write_tar(path, members, layout=tarfile.USTAR_FORMAT):
    """A tar file; ``members`` are (name, content)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=layout) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def write_shards(folder, counts=UNEVEN):
    """Shards of consecutive pictures, each with its class beside it."""
    first = 0
    for number, count in enumerate(counts):
        members = []
        for value in range(first, first + count):
            members += [(f"{value:06d}.cls", str(value % 3).encode()), (f"{value:06d}.png", encoded(value))]
        write_tar(folder / f"train-{number:04d}.tar", members)
        first += count
    return folder


def values(source):
    """Which picture each image is."""
    return [value(source, number) for number in range(len(source))]


def value(source, number):
    pixel = np.asarray(source.open(number))[0, 0]
    assert pixel[2] == 77
    return int(pixel[0]) + 256 * int(pixel[1])


def build(folder, **options):
    return SOURCES.get("shards")(root=str(folder), **options)


class Numbers:
    """A data set that reads a source's image and tells which it is, and which process read it."""

    def __init__(self, source):
        self.source = source

    def __getitem__(self, index):
        return index[0], value(self.source, index[1]), os.getpid()


def read_all(folder, batch_size, epochs, world, **options):
    """What every process reads, with two workers each and a source of its own."""
    seen, readers = [], set()
    for rank in range(world):
        source = build(folder)
        batches = Batches(source.samples_per_epoch, batch_size, epochs, seed=3, rank=rank, world=world,
                          order=source.order, **options)
        loader = DataLoader(Numbers(source), batch_sampler=batches, num_workers=2, collate_fn=list)
        for batch in loader:
            seen += [(epoch, picture) for epoch, picture, _ in batch]
            readers |= {(rank, reader) for *_, reader in batch}
    assert len(readers) == 2 * world
    return seen


def test_three_processes_of_two_workers_see_every_sample_of_seven_uneven_shards_once(tmp_path):
    write_shards(tmp_path)
    seen = read_all(tmp_path, batch_size=6, epochs=2, world=3, uneven=True)
    assert Counter(seen) == Counter((epoch, picture) for epoch in range(2) for picture in range(31))


def test_training_leaves_out_what_cannot_be_shared_equally_and_nothing_else(tmp_path):
    """Equal shares of 31 samples for three processes are 30; another one is left out in the next epoch."""
    write_shards(tmp_path)
    source = build(tmp_path)
    left_out = []
    for epoch in range(2):
        seen = Counter()
        for rank in range(3):
            batches = list(Batches(31, 15, 2, seed=3, rank=rank, world=3, least=0, order=source.order))
            assert [len(batch) for batch in batches] == [5, 5] * 2
            seen.update(index for batch in batches for when, index in batch if when == epoch)
        assert set(seen.values()) == {1} and len(seen) == 30
        left_out += set(range(31)) - set(seen)
    assert len(set(left_out)) == 2
    write_shards(tmp_path / "even", (5, 1, 9, 4, 7, 1, 3))  # 30 samples: equal shares lose none
    seen = read_all(tmp_path / "even", batch_size=9, epochs=1, world=3, least=1)
    assert Counter(seen) == Counter((0, picture) for picture in range(30))


def test_order_is_the_seeds_and_the_epochs_alone_and_is_the_same_after_a_stop(tmp_path):
    write_shards(tmp_path)

    def batches(seed, start=0, window=0):
        source = build(tmp_path, window=window)
        sampler = Batches(source.samples_per_epoch, 4, 3, seed=seed, order=source.order)
        sampler.start = start
        return list(sampler)

    for window in (0, 2):
        whole = batches(1, window=window)
        assert whole == batches(1, window=window) != batches(2, window=window)
        for step in (1, 5, 8, 11, 23):  # within epochs and between them
            assert batches(1, step, window) == whole[step:]
        epochs = [[index for batch in whole for when, index in batch if when == epoch] for epoch in range(3)]
        assert len({tuple(epoch) for epoch in epochs}) == 3


def test_views_of_a_batch_are_equal_after_a_stop(tmp_path):
    write_shards(tmp_path)

    def read(start):
        source = build(tmp_path, window=3)
        sampler = Batches(len(source), 4, 2, seed=1, order=source.order)
        sampler.start = start
        views = Views(source, MultiCrop(8, 4, 1), seed=1)
        return list(DataLoader(views, batch_sampler=sampler, num_workers=1, collate_fn=collate))

    whole, rest = read(0), read(9)  # epochs of eight batches
    assert len(rest) == len(whole) - 9
    for one, two in zip(whole[9:], rest, strict=True):
        assert all((one[key] == two[key]).all() for key in ("global", "local", "index"))


def test_a_window_keeps_to_a_few_shards(tmp_path):
    write_shards(tmp_path)
    source = build(tmp_path, window=2)
    owner = np.repeat(np.arange(7), UNEVEN)
    for epoch in range(3):
        order = source.order(0, epoch)
        assert sorted(order) == list(range(31))
        runs, shard_of = [], owner[order].tolist()
        while shard_of:
            run = {shard_of[0]}
            while shard_of and (len(run) < 2 or shard_of[0] in run):
                run.add(shard_of.pop(0))
            runs.append(run)
        assert len(runs) <= 5 and set().union(*runs) == set(range(7))
    assert sorted(build(tmp_path, window=100).order(0, 0)) == list(range(31))
    with pytest.raises(UserError, match="data.window must be 0"):
        build(tmp_path, window=-1)


def test_all_ways_to_write_a_tar(tmp_path):
    long = "a folder/" + "ünïcödé " * 20
    for layout in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        names = ["1.png", "a/2.PNG", "./3.jpg", "ä/ß.jpeg"] + ([f"{long}.png"] if layout else [])
        write_tar(tmp_path / f"{layout}.tar", [(name, encoded(5)) for name in names], layout)
        source = build(tmp_path, shards=f"{layout}.tar")
        assert values(source) == [5] * len(names) and source.remarks() == []


def test_samples_are_what_webdataset_says(tmp_path):
    """All up to the first dot of the file's name is the key; a sample has one image."""
    write_tar(tmp_path / "a.tar", [
        ("x/1.json", b"{}"), ("x/1.seg.png", encoded(900)), ("x/1.jpg.txt", b"a dog"), ("x/1.png", encoded(1)),
        ("x/1.webp", encoded(901)), ("x/1.cls", b"7"),
        ("y/1.png", encoded(2)), ("y/1.cls", b"no number"),
        ("2.txt", b"no image"), ("._3.png", b"of macOS"), ("noext", b""), ("3.d/4.png", encoded(3)),
        ("4.cls", b"4\n"), ("4.png", encoded(4)),
        ("5.left.png", encoded(50)), ("5.right.png", encoded(51)),
    ])
    source = build(tmp_path, labels=True)
    assert values(source) == [1, 2, 3, 4] and source.labels().tolist() == [7, -1, -1, 4]
    assert source.label(0) == 7 and build(tmp_path).label(0) is None and build(tmp_path).labels() is None
    assert source.remarks() == ["2 samples of the shards have no image and are left out"]
    assert values(build(tmp_path, extensions=["right.png"])) == [51]
    assert values(build(tmp_path, extensions=[".SEG.png", "left.png"])) == [900, 50]
    with pytest.raises(UserError, match="no image with one of the extensions tiff.*--data.extensions"):
        build(tmp_path, extensions=["tiff"])


def test_links_and_folders_in_a_shard_are_no_samples(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, kind in (("d", tarfile.DIRTYPE), ("1.png", tarfile.REGTYPE), ("2.png", tarfile.SYMTYPE),
                           ("3.png", tarfile.LNKTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "1.png" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            member.size = len(encoded(1)) if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(encoded(1)))
    assert values(build(tmp_path)) == [1]


def test_nothing_in_a_shard_is_ever_written_or_followed(tmp_path):
    """Names that lead elsewhere are names; devices and pipes are no images."""
    inside = tmp_path / "in"
    inside.mkdir()
    names = ["/etc/1.png", "../../2.png", "a/../../3.png", "..4.png"]
    with tarfile.open(inside / "a.tar", "w") as tar:
        for number, name in enumerate(names):
            member = tarfile.TarInfo(name)
            member.size = len(encoded(number))
            tar.addfile(member, io.BytesIO(encoded(number)))
        for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE):
            member = tarfile.TarInfo(f"{kind.decode()}.png")
            member.type, member.devmajor, member.devminor, member.linkname = kind, 1, 5, "/etc/passwd"
            tar.addfile(member)
    assert values(build(inside)) == [0, 1, 2]  # the last name begins with a dot: hidden
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.tar", "in"]


def test_members_of_one_key_in_two_cases(tmp_path):
    """Keys differ by case, as in WebDataset; extensions do not, so 1.JPG and 1.jpg are two images of one sample."""
    write_tar(tmp_path / "a.tar", [("A.png", encoded(1)), ("a.png", encoded(2)), ("b.PNG", encoded(3)),
                                   ("b.png", encoded(4)), ("c.txt", b"no image")])
    source = build(tmp_path)
    assert values(source) == [1, 2, 3]
    assert source.remarks() == ["1 samples of the shards have no image and are left out"]


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
@pytest.mark.parametrize("size", [2**21, 2**40, 2**62])
def test_a_header_that_claims_to_be_long_is_not_read(tmp_path, kind, size):
    whole = tarfile.TarInfo("1.png")
    whole.size = len(encoded(1))
    padded = encoded(1) + bytes(-len(encoded(1)) % 512)
    liar = tarfile.TarInfo("././@LongLink")
    liar.type, liar.size = kind, size
    content = whole.tobuf(tarfile.GNU_FORMAT) + padded + liar.tobuf(tarfile.GNU_FORMAT) + bytes(1024)
    (tmp_path / "a.tar").write_bytes(content)
    source = build(tmp_path)
    assert values(source) == [1] and f"damaged at byte {512 + len(padded)} of {len(content)}" in source.remarks()[0]


@pytest.mark.parametrize("cut", ["data", "header", "padding", "between", "end"])
def test_a_truncated_shard_costs_its_own_tail_and_is_named(tmp_path, cut):
    write_shards(tmp_path, (3, 4, 2))
    path = tmp_path / "train-0001.tar"
    with tarfile.open(path) as tar:
        members = tar.getmembers()
    third = members[5]  # the picture of the third sample of this shard
    at = {"data": third.offset_data + 20, "header": third.offset + 100, "between": third.offset,
          "padding": third.offset_data + third.size + 3, "end": members[-1].offset_data + members[-1].size}[cut]
    os.truncate(path, at)
    source = build(tmp_path)
    kept = {"padding": 3, "end": 4}.get(cut, 2)
    assert values(source) == [0, 1, 2, *range(3, 3 + kept), 7, 8]
    damage = {"data": third.offset, "header": third.offset}.get(cut, at)
    assert source.remarks() == [
        f"the shard {path} is truncated or damaged at byte {damage} of {at}: the {kept} images before that are used"]
    assert build(tmp_path).remarks() == source.remarks(), "said at every start"


def test_a_damaged_header_and_zeros_that_never_arrived(tmp_path):
    write_shards(tmp_path, (4, 4))
    path = tmp_path / "train-0000.tar"
    with tarfile.open(path) as tar:
        offset = tar.getmembers()[4].offset
    content = bytearray(path.read_bytes())
    content[offset : offset + 512] = os.urandom(512)
    path.write_bytes(content)
    source = build(tmp_path)
    assert values(source) == [0, 1, 4, 5, 6, 7] and f"{path} is truncated or damaged at byte {offset}" in str(
        source.remarks())
    content[offset:] = bytes(2**20 + 512)  # as of a download that first reserves all of the file
    path.write_bytes(content)
    source = build(tmp_path)
    assert len(source) == 6 and f"at byte {offset} of {len(content)}" in source.remarks()[0]


@pytest.mark.parametrize("size", ["negative", "huge"])
def test_a_hostile_header_ends_the_reading(tmp_path, size):
    member = tarfile.TarInfo("1.png")
    member.size = len(encoded(1))
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    padded = encoded(1) + bytes(-len(encoded(1)) % 512)
    bad = header.copy()
    bad[:5] = b"2.png"
    number = -1024 if size == "negative" else 2**70
    bad[124:136] = (b"\xff" if number < 0 else b"\x80") + number.to_bytes(11, "big", signed=True)
    bad[148:156] = b" " * 8
    bad[148:156] = b"%06o\0 " % sum(bad)
    (tmp_path / "a.tar").write_bytes(bytes(header) + padded + bytes(bad) + padded)
    source = build(tmp_path)
    assert values(source) == [1] and f"at byte {512 + len(padded)}" in source.remarks()[0]


def test_what_is_no_shard_at_all(tmp_path):
    write_shards(tmp_path, (2, 2))
    (tmp_path / "train-0000.tar").write_bytes(b"<html>not found</html>" * 100)
    (tmp_path / "train-0009.tar").write_bytes(b"")
    source = build(tmp_path)
    assert values(source) == [2, 3] and [remark.split(" of ")[0][-9:] for remark in source.remarks()] == [
        "at byte 0", "at byte 0"]
    with pytest.raises(UserError, match="hold no image.*damaged at byte 0"):
        build(tmp_path, shards="train-0000.tar")
    for number in range(20, 29):
        (tmp_path / f"train-00{number}.tar").write_bytes(b"nothing")
    assert len(build(tmp_path).remarks()) == 5 and "6 more shards" in build(tmp_path).remarks()[-1]
    with tarfile.open(tmp_path / "train-0030.tar", "w:gz"):
        pass
    with pytest.raises(UserError, match="train-0030.tar is compressed.*gunzip"):
        build(tmp_path)


def test_paths_globs_and_ranges(tmp_path, monkeypatch):
    write_shards(tmp_path / "a" / "b [x]", (1, 2, 3))
    write_shards(tmp_path / "c", (4,))
    monkeypatch.chdir(tmp_path)

    def names(**options):
        source = SOURCES.get("shards")(**options)
        return [os.path.relpath(shard, tmp_path) for shard in source.shards]

    here = [f"a/b [x]/train-000{number}.tar" for number in range(3)]
    assert names(root=str(tmp_path)) == [*here, "c/train-0000.tar"] == names(shards=["**/*.tar"])
    assert names(shards="a/*/train-*.tar") == here == names(root="a", shards="b [x]/train-{0000..0002}.tar")
    assert names(shards=str(tmp_path / "a/b [[]x]/*1.tar")) == here[1:2]
    assert names(shards=["a/b [x]/train-0001.tar", here[2]]) == here[1:]
    os.link(here[0], "c/again.tar")
    source = SOURCES.get("shards")(shards=["a/**/*.tar", "c/*.tar", "c/../c/again.tar"])
    assert len(source.shards) == 4 and "again.tar is the same file as" in source.remarks()[0]
    for options, message in (
            ({}, "data.root is not set.*--data.shards"),
            ({"shards": "a/nothing-*.tar"}, "no shard .*a/nothing-"),
            ({"shards": "a/b [x]/train-{0000..0003}.tar"}, "no shard .*train-0003.tar"),
            ({"shards": "t-{3..1}.tar"}, "goes from 3 to 1"), ({"root": "nowhere"}, "does not exist"),
            ({"shards": "a"}, "cannot read the shard .*a: Is a directory")):
        with pytest.raises(UserError, match=message):
            SOURCES.get("shards")(**options)


def test_only_shards_that_changed_are_indexed_again(tmp_path, monkeypatch):
    write_shards(tmp_path)
    read = []
    index_tar = _tar_index.index_tar

    def spy(path, extensions):
        read.append(os.path.basename(path))
        return index_tar(path, extensions)

    monkeypatch.setattr(_shard_index, "index_tar", spy)
    first = build(tmp_path)
    assert len(read) == 7
    again = build(tmp_path)
    assert len(read) == 7 and values(again) == list(range(31))
    assert again.fingerprint() == first.fingerprint() and (again.order(0, 1) == first.order(0, 1)).all()
    read.clear()
    path = tmp_path / "train-0002.tar"
    write_tar(path, [("1.png", encoded(99))])
    write_tar(tmp_path / "train-0007.tar", [("1.png", encoded(98))])
    (tmp_path / "train-0005.tar").unlink()
    other = build(tmp_path)
    assert sorted(read) == ["train-0002.tar", "train-0007.tar"] and other.fingerprint() != first.fingerprint()
    assert 99 in values(other) and 98 in values(other) and len(other) == 31 - 9 + 1 - 2 + 1
    read.clear()
    os.utime(path, ns=(0, 0))
    assert values(build(tmp_path)) == values(other) and read == ["train-0002.tar"]


def test_an_index_that_was_stopped_half_way_goes_on(tmp_path, monkeypatch):
    write_shards(tmp_path)
    broken = tmp_path / "train-0003.tar"
    content = broken.read_bytes()
    broken.write_bytes(b"\x1f\x8b")
    with pytest.raises(UserError, match="compressed"):
        build(tmp_path)
    broken.write_bytes(content)
    read, index_tar = [], _tar_index.index_tar
    monkeypatch.setattr(_shard_index, "index_tar",
                        lambda path, extensions: read.append(path) or index_tar(path, extensions))
    assert values(build(tmp_path)) == list(range(31)) and len(read) == 4


def test_a_damaged_index_is_made_again(tmp_path, cache):
    write_shards(tmp_path)
    before = set((cache / "indices").glob("shards-*.npz")) if (cache / "indices").exists() else set()
    build(tmp_path)
    [path] = set((cache / "indices").glob("shards-*.npz")) - before
    whole = path.read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"nothing like it", whole[:-200] + bytes(200)):
        path.write_bytes(content)
        assert values(build(tmp_path)) == list(range(31))
        assert path.read_bytes() != content


def test_moved_shards_are_the_same_source(tmp_path):
    one, two = (build(write_shards(tmp_path / name)) for name in ("one", "two"))
    assert one.fingerprint() == two.fingerprint() != build(write_shards(tmp_path / "x", (31,))).fingerprint()


def test_a_shard_that_changes_under_a_run_is_unreadable_not_something_else(tmp_path):
    write_shards(tmp_path)
    source = build(tmp_path)
    write_tar(tmp_path / "train-0000.tar", [(f"{number}.png", encoded(number + 500)) for number in range(9)])
    with pytest.raises(UnreadableImage, match="train-0000.tar at byte .*changed since"):
        source.open(0)
    (tmp_path / "train-0002.tar").unlink()
    with pytest.raises(UnreadableImage, match="train-0002.tar at byte .*No such file"):
        source.open(10)
    sample = Views(source, MultiCrop(8, 4, 1))[0, 0]
    assert sample["unreadable"][0].startswith("train-0000.tar at byte 1536: ") and sample["index"] > 4
    value(source, 19)
    os.truncate(tmp_path / "train-0004.tar", 1600)
    with pytest.raises(UnreadableImage, match="train-0004.tar at byte 1536: the shard ends within it"):
        source.open(19)


def test_images_of_16_bits_and_animations_are_one_upright_picture(tmp_path):
    """And what is no image under an image's name is unreadable."""
    grey, animation = io.BytesIO(), io.BytesIO()
    Image.fromarray(np.full((8, 9), 40000, np.uint16)).save(grey, "PNG")
    frames = [Image.new("RGB", (9, 8), (value, 0, 77)) for value in (10, 20)]
    frames[0].save(animation, "GIF", save_all=True, append_images=frames[1:])
    write_tar(tmp_path / "a.tar", [("1.png", grey.getvalue()), ("2.gif", animation.getvalue()), ("3.jpg", b"a text")])
    source = build(tmp_path)
    first, second = (np.asarray(source.open(number)) for number in range(2))
    assert first.shape == second.shape == (8, 9, 3) and (abs(first.astype(int) - 40000 / 257) <= 1).all()
    assert second[0, 0].tolist() == [10, 0, 77]
    with pytest.raises(UnreadableImage, match="a.tar at byte"):
        source.open(2)


def test_damaged_images_in_whole_shards_are_counted(tmp_path):
    whole = encoded(1)
    write_tar(tmp_path / "a.tar", [("1.png", whole), ("2.png", whole[: len(whole) // 2]), ("3.png", b"")])
    views = Views(build(tmp_path), MultiCrop(8, 4, 1))
    batch = collate([views[0, number] for number in range(3)])
    assert {entry.split(": ")[0].rsplit(" at byte ")[0] for entry in batch["unreadable"]} == {"a.tar"}
    assert batch["index"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("mode, suffix", [("L", "PNG"), ("CMYK", "JPEG"), ("RGBA", "PNG"), ("P", "PNG"), ("1", "PNG")])
def test_images_of_every_mode(tmp_path, mode, suffix):
    write_tar(tmp_path / "a.tar", [(f"1.{suffix.lower()}", encoded(200, mode, suffix))])
    image = build(tmp_path).open(0)
    assert image.mode == "RGB" and image.size == (9, 8)


def test_more_shards_than_are_kept_open(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "_OPEN", 2)
    write_shards(tmp_path, [1] * 12)
    source = build(tmp_path)
    numbers = [random.Random(0).randrange(12) for _ in range(60)]
    before = len(os.listdir("/proc/self/fd"))
    assert [value(source, number) for number in numbers] == numbers
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    with pytest.raises(IndexError):
        source.open(12)


def test_a_source_goes_to_other_processes(tmp_path):
    source = build(write_shards(tmp_path))
    assert value(source, 3) == 3 and value(pickle.loads(pickle.dumps(source)), 4) == 4


# -- making them ------------------------------------------------------------------------------------


def photographs(folder, names):
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(number))
    return folder


def test_a_folder_becomes_shards(tmp_path):
    """Names that would be one sample, or none, in WebDataset's layout stay images of their own."""
    names = ["a.png", "b/a.png", "b.c/a.png", "b_c/a.png", "IMG.1.PNG", "IMG.2.png", "A.PNG", "a.jpg", "..x.png/y.png",
             "_.png", "ü/写真.png", f"{'long ' * 40}.png"]
    folder = photographs(tmp_path / "photos", [name for name in names if not name.startswith(".")])
    (folder / "empty.png").touch()
    (folder / "notes.txt").write_text("no image")
    shards, count, left_out = pack(folder, tmp_path / "shards", per_shard=4)
    assert [path.name for path in shards] == [f"train-000{number}.tar" for number in range(3)]
    assert count == 11 and left_out == "empty.png is empty"
    source = build(tmp_path / "shards")
    assert sorted(values(source)) == list(range(11)) != values(source) and source.remarks() == []
    members = [tarfile.open(path).getnames() for path in shards]
    assert [len(names) for names in members] == [4, 4, 3]
    assert len({name.casefold().partition(".")[0] for names in members for name in names}) == 11


def test_the_same_folder_and_seed_give_the_same_shards(tmp_path):
    folder = photographs(tmp_path / "photos", [f"{number}.png" for number in range(9)])
    packed = {}
    for target, seed in (("one", 0), ("two", 0), ("three", 1)):
        paths, _, _ = pack(folder, tmp_path / target, per_shard=5, seed=seed)
        packed[target] = [path.read_bytes() for path in paths]
        for path in folder.iterdir():
            os.utime(path, (1, 1))
    assert packed["one"] == packed["two"] != packed["three"]


def test_what_cannot_be_packed(tmp_path, monkeypatch, capsys):
    folder = photographs(tmp_path / "photos", ["1.png"])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "none").mkdir()
    (tmp_path / "hollow").mkdir()
    (tmp_path / "hollow" / "1.jpg").touch()
    for source, target, size, message in (
            (folder, "full", 1, "full is there already"), (folder, "full/x", 1, "is there already"),
            (folder, "full/x/y", 1, "cannot write .*full/x/y: (Not a directory|File exists): choose"),
            (folder, "new", 0, "--per-shard is 0"),
            (tmp_path / "none", "new", 1, "is empty"), (tmp_path / "no", "new", 1, "does not exist"),
            (tmp_path / "hollow", "new", 1, "no image in .*hollow can be read .1.jpg is empty")):
        with pytest.raises(UserError, match=message) as caught:
            pack(source, tmp_path / target, size)
        assert "\n" not in str(caught.value) and not (tmp_path / "new").exists()
    assert not list(tmp_path.glob(".*"))
    monkeypatch.setattr("sys.argv", ["shards", str(folder), str(tmp_path / "new"), "--per-shard", "7"])
    assert main() == 0
    assert "packed 1 images into 1 shards" in capsys.readouterr().out and (tmp_path / "new/train-0000.tar").is_file()
