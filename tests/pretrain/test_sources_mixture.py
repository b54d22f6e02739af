"""Mixtures: how often each source is drawn from, resume, typed entries; and sources as options of a run."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from PIL import Image

from harness.config import as_dict, load
from harness.errors import UserError
from harness.sampling import Batches
from pretrain.config import PretrainConfig
from pretrain.engine import Pretraining
from pretrain.sources import SOURCES


def photograph(seed):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (24, 20, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def folder(path, count, prefix=""):
    for number in range(count):
        file = path / f"{prefix}{number % 3}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(photograph(number))
    return str(path)


def shards(path, counts):
    path.mkdir()
    for shard, count in enumerate(counts):
        with tarfile.open(path / f"{shard}.tar", "w") as tar:
            for number in range(count):
                member = tarfile.TarInfo(f"{number:04d}.png")
                content = photograph(100 * shard + number)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return str(path)


@pytest.fixture
def entries(tmp_path):
    """Seven, four and eleven images."""
    return [{"name": "folder", "root": folder(tmp_path / "a", 7)},
            {"name": "folder", "root": folder(tmp_path / "b", 4), "labels": "folders"},
            {"name": "shards", "root": shards(tmp_path / "c", (5, 2, 4)), "window": 1}]


def weighted(entries, *weights, **options):
    return SOURCES.get("mixture")([{**entry, "weight": weight} for entry, weight in
                                   zip(entries, weights, strict=True)], **options)


def drawn(source, epoch, seed=0):
    """How often each image is drawn in an epoch."""
    order = source.order(seed, epoch)
    assert len(order) == source.samples_per_epoch and order.dtype == np.int64
    return np.bincount(order, minlength=len(source))


def test_without_weights_every_image_is_drawn_once(entries):
    source = SOURCES.get("mixture")(entries)
    assert len(source) == source.samples_per_epoch == 22 and source.counts == [7, 4, 11]
    assert drawn(source, 0).tolist() == drawn(source, 5).tolist() == [1] * 22
    assert source.name(0) == "source 1, 0/0.png" and source.name(8) == "source 2, 0/3.png"
    assert source.name(11) == "source 3, 0.tar at byte 512"
    assert source.open(8).tobytes() == source.sources[1].open(1).tobytes()
    assert source.encoded(11) == photograph(0) and source.encoded(0).name == "0.png"
    assert source.labels() is None and source.label(3) is None
    with pytest.raises(IndexError):
        source.open(22)


def test_a_weight_is_how_many_times_an_image_is_drawn(entries):
    source = weighted(entries, 3, 0.5, 1)
    assert source.counts == [21, 2, 11] and source.samples_per_epoch == 34
    for epoch in range(4):
        counts = drawn(source, epoch)
        assert counts[:7].tolist() == [3] * 7 and counts[11:].tolist() == [1] * 11
        assert counts[7:11].sum() == 2 and counts.max() == 3
    assert (drawn(source, 0) + drawn(source, 1))[7:11].tolist() == [1] * 4, "the other half in the next epoch"


def test_a_fraction_is_fair_over_epochs(entries):
    source = weighted(entries, 0.3, 1.7, 1)
    assert source.counts == [2, 7, 11]
    total = sum(drawn(source, epoch) for epoch in range(28))  # 28 * 2 = 8 * 7, 28 * 7 = 49 * 4
    assert total[:7].tolist() == [8] * 7 and total[7:11].tolist() == [49] * 4


def test_a_weight_can_be_a_share(entries):
    source = weighted(entries, 2, 1, 1, weights="shares")
    assert source.samples_per_epoch == 22 and source.counts == [11, 5, 6]
    assert sum(drawn(source, epoch) for epoch in range(7))[:7].tolist() == [11] * 7


def test_batches_are_the_seeds_alone_and_the_same_after_a_stop(entries):
    def batches(seed, start=0):
        source = weighted(entries, 1.5, 0.75, 1)
        sampler = Batches(source.samples_per_epoch, 5, 4, seed=seed, order=source.order)
        sampler.start = start
        return list(sampler)

    whole = batches(0)
    assert whole == batches(0) != batches(1)
    for start in (1, 6, 7, 13):
        assert batches(0, start) == whole[start:]
    orders = {tuple(weighted(entries, 1, 1, 1).order(0, epoch)) for epoch in range(4)}
    assert len(orders) == 4


def test_sources_keep_their_own_order_and_are_spread_over_the_epoch(entries):
    source = SOURCES.get("mixture")(entries)
    order = source.order(0, 0)
    of_shards = np.searchsorted([5, 7, 11], order[order >= 11] - 11, side="right")
    assert len([1 for one, two in zip(of_shards, of_shards[1:], strict=False) if one != two]) == 2, "a window of one"
    many = weighted(entries, 100, 100, 100).order(0, 0)
    halves = [Counter(np.searchsorted([7, 11, 22], half, side="right").tolist()) for half in np.split(many, 2)]
    assert abs(halves[0][0] - halves[1][0]) < 120


def test_classes_of_different_sources_are_different(tmp_path):
    entries = [{"name": "folder", "labels": "folders", "root": folder(tmp_path / name, 4)} for name in "ab"]
    source = SOURCES.get("mixture")(entries)
    assert source.labels().tolist() == [0, 0, 1, 2, 3, 3, 4, 5] and source.label(6) == 4


def test_fingerprints_and_remarks_are_of_all(entries):
    source = weighted(entries, 1, 1, 1)
    prints = {weighted(entries, *weights).fingerprint() for weights in ((1, 1, 1), (2, 1, 1), (1, 1, 0.5))}
    assert len(prints) == 3 and source.fingerprint() in prints
    path = f"{entries[2]['root']}/1.tar"
    with open(path, "r+b") as file:
        file.truncate(700)
    assert "1.tar is truncated" in weighted(entries, 1, 1, 1).remarks()[0]


def test_a_mixture_of_mixtures(entries):
    inner = {"name": "mixture", "sources": [{**entries[0], "weight": 2}, entries[1]], "weight": 0.5}
    source = SOURCES.get("mixture")([inner, entries[2]])
    assert source.counts == [9, 11] and len(source) == 22
    total = drawn(source, 0) + drawn(source, 1)
    assert total.tolist() == [2] * 7 + [1] * 4 + [2] * 11


@pytest.mark.parametrize("entry, message", [
    ({"name": "foldr"}, r"source 2 \(foldr\): unknown image source 'foldr' \(did you mean 'folder'\?\)"),
    ({"name": "folder", "rot": "x"}, r"source 2 \(folder\): unknown option rot \(did you mean 'root'\?\): it has name"),
    ({"name": "folder", "wieght": 2}, r"source 2 \(folder\): unknown option wieght \(did you mean 'weight'\?\)"),
    ({"name": "folder", 3: 2}, r"source 2 \(folder\): unknown option 3: it has"),
    ({"name": "folder", "root": "/nowhere"}, r"source 2 \(folder\): the folder /nowhere does not exist"),
    ({"name": "folder", "labels": "yes"}, r"source 2 \(folder\): option --data.labels: .*yes"),
    ({"name": "shards", "window": "many"}, r"source 2 \(shards\): option --data.window: .*many"),
    ({"name": "folder", "weight": 0}, "source 2 .*weight must be a number above 0, not 0"),
    ({"name": "folder", "weight": True}, "source 2 .*weight must be a number above 0, not True"),
    ({"name": "folder", "weight": float("nan")}, "source 2 .*weight must be"),
    ({"root": "x"}, "source 2: .*is not a source: write each as"),
    ("folder", "source 2: 'folder' is not a source"),
])
def test_mistakes_are_named(entries, entry, message):
    with pytest.raises(UserError, match=f"^data.sources, {message}"):
        SOURCES.get("mixture")([entries[0], entry])


def test_no_sources():
    with pytest.raises(UserError, match="data.sources is not set.*name: folder"):
        SOURCES.get("mixture")()


def test_options_on_the_command_line_and_in_a_file(entries, tmp_path):
    given = [{**entries[0], "weight": 2}, {**entries[2], "shards": ["0.tar", "1.tar"]}]
    config = load(PretrainConfig, ["--data.name=mixture", f"--data.sources={json.dumps(given)}"])
    assert config.data.options["sources"] == given and config.data.build().counts == [14, 7]
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(as_dict(config)))
    again = load(PretrainConfig, ["--config", str(tmp_path / "run.yaml")])
    assert as_dict(again) == as_dict(config)
    for options, value in ((["--data.shards=train-{0..3}.tar"], "train-{0..3}.tar"), (["--data.shards=*.tar"], "*.tar"),
                           (["--data.shards=[a.tar, '*.tar']"], ["a.tar", "*.tar"])):
        assert load(PretrainConfig, ["--data.name=shards", *options]).data.options["shards"] == value
    config = load(PretrainConfig, ["--data.name=coco", "--data.splits=[unlabeled2017]"])
    assert list(config.data.options["splits"]) == ["unlabeled2017"]
    with pytest.raises(UserError, match="--data.splits"):
        load(PretrainConfig, ["--data.name=coco", "--data.splits=[val2017]"])


def test_processes_that_see_other_images_are_refused(entries):
    one, two = (SOURCES.get("folder")(root=entry["root"]) for entry in entries[:2])
    flag = SimpleNamespace(together=nullcontext, gather=lambda value: [value, value, two.fingerprint()])
    run = SimpleNamespace(flag=flag, source=one, world=SimpleNamespace(is_main_process=True))
    with pytest.raises(UserError, match="process 0 and process 2 see different images .folder-7-.* and folder-4-"):
        Pretraining._compare_sources(run)


@pytest.mark.slow
def test_a_run_on_a_mixture_is_the_same_after_a_stop(programs, entries, same_runs):
    """Epochs of 22 + 11 samples are two steps; the stop is between two checkpoints, within an epoch."""
    options = ["--data.name=mixture", f"--data.sources={json.dumps([{**entries[0], 'weight': 2}, *entries[1:]])}",
               "--batch_size=8", "--epochs=2", "--loop.save_steps=3"]
    assert programs.main("pretrain", "--output=whole", *options, "--workers=1").code == 0
    step = Pretraining.train_step

    def stops(self, batch):
        if self.step == 5:
            raise KeyboardInterrupt
        step(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pretraining, "train_step", stops)
        assert programs.main("pretrain", "--output=stopped", *options).code != 0
    rest = programs.main("pretrain", "--output=stopped", *options)
    assert rest.code == 0 and "at step 3" in rest.out
    same_runs(programs.folder / "whole", programs.folder / "stopped")
