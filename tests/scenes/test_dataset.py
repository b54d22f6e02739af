"""The cache: exact, shared, growing, safe for two processes."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

import scenes.dataset as dataset
from harness.errors import UserError
from scenes import Scenes, generate, render
from scenes.__main__ import main
from scenes.dataset import SPLIT_SEEDS, SPLITS, seed_of


def test_samples_equal_a_direct_rendering(tmp_path):
    data = Scenes("val", 3, 32, root=tmp_path)
    assert len(data) == 3 and data.images.shape == (3, 32, 32, 3) and data.images.dtype == np.uint8
    for index in range(3):
        expected = render(generate(seed_of("val", index)), 32, 32)
        sample = data.sample(index)
        assert set(sample) == set(expected) and set(data.labels) == set(expected) - {"image"}
        for name, value in expected.items():
            assert sample[name].dtype == value.dtype and sample[name].shape == value.shape, name
            if name in ("normals", "keypoints"):
                np.testing.assert_allclose(sample[name], value, atol=1e-4 if name == "normals" else 1e-3)
            else:
                np.testing.assert_array_equal(sample[name], value, err_msg=name)
        np.testing.assert_array_equal(data.images[index], expected["image"])
    assert data.sample(-1)["scene"] == data.sample(2)["scene"]
    with pytest.raises(IndexError):
        data.sample(3)


def test_splits_are_disjoint():
    ranges = [(seed_of(split, 0), seed_of(split, SPLIT_SEEDS - 1)) for split in SPLITS]
    assert all(before[1] < after[0] for before, after in zip(ranges, ranges[1:], strict=False))


def test_pretrain_has_images_and_scene_types_only(tmp_path):
    data = Scenes("pretrain", 2, 16, root=tmp_path)
    assert set(data.sample(1)) == {"image", "scene"}
    assert data.scene_types.shape == (2,)


def test_smaller_sets_and_images_reuse_what_is_there_and_larger_ones_extend_it(tmp_path, monkeypatch):
    first = Scenes("train", 4, 16, root=tmp_path)
    before = first.images.copy()
    rendered = []
    original = dataset.render_range
    monkeypatch.setattr(dataset, "render_range", lambda *what: rendered.append(what[3:]) or original(*what))
    assert len(Scenes("train", 2, 16, root=tmp_path).images) == 2
    images = Scenes("train", 4, 16, labels=False, root=tmp_path)
    assert np.array_equal(images.images, before) and set(images.sample(0)) == {"image", "scene"}
    assert rendered == []
    more = Scenes("train", 6, 16, root=tmp_path)
    assert rendered == [(4, 6)]
    assert np.array_equal(more.images[:4], before) and np.array_equal(first.images, before)


def test_processes_render_the_same_as_one(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "_FEW", 2)
    monkeypatch.setattr(dataset, "available_cores", lambda: 2)
    many = Scenes("test", 5, 16, root=tmp_path / "many")
    monkeypatch.setattr(dataset, "available_cores", lambda: 1)
    one = Scenes("test", 5, 16, root=tmp_path / "one")
    for index in range(5):
        for name, value in one.sample(index).items():
            np.testing.assert_array_equal(many.sample(index)[name], value, err_msg=name)


def test_two_processes_that_ask_at_once_share_one_rendering(tmp_path):
    code = ("import sys, hashlib, scenes.dataset as d; "
            "keep = d._render_all; "
            "d._render_all = lambda *a: (print('renders'), keep(*a)); "
            "data = d.Scenes('train', 12, 32, root=sys.argv[1]); "
            "print(hashlib.sha256(data.images.tobytes()).hexdigest())")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    running = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=environment, text=True,
                                stdout=subprocess.PIPE) for _ in range(2)]
    out = [process.communicate()[0].split() for process in running]
    assert all(process.returncode == 0 for process in running)
    assert sorted(len(lines) for lines in out) == [1, 2]
    assert out[0][-1] == out[1][-1]


def test_a_half_filled_cache_is_filled_again(tmp_path, monkeypatch):
    original = dataset.render_range

    def broken(split, size, labels, start, stop):
        yield next(iter(original(split, size, labels, start, stop)))
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset, "render_range", broken)
    with pytest.raises(KeyboardInterrupt):
        Scenes("train", 3, 16, root=tmp_path)
    monkeypatch.undo()
    data = Scenes("train", 3, 16, root=tmp_path)
    assert np.array_equal(data.images[2], render(generate(seed_of("train", 2)), 16, 16)["image"])
    (data.folder / "count.json").write_text("{half")
    assert Scenes("train", 3, 16, root=tmp_path).images.any()
    assert json.loads((data.folder / "count.json").read_text())["count"] == 3


def test_a_pickled_set_is_small_and_reads_the_same(tmp_path):
    data = Scenes("train", 4, 32, root=tmp_path)
    data.sample(0)
    packed = pickle.dumps(data)
    assert len(packed) < 2000
    np.testing.assert_array_equal(pickle.loads(packed).images, data.images)


def test_the_environment_names_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TASKLIFT_CACHE", str(tmp_path / "there"))
    assert Scenes("train", 1, 16).folder.is_relative_to(tmp_path / "there")


def test_a_failing_worker_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "_FEW", 1)
    monkeypatch.setattr(dataset, "available_cores", lambda: 2)
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(UserError, match="rendering scenes into"):
        Scenes("train", 4, 16, root=tmp_path)


@pytest.mark.parametrize(("options", "message"), [
    ({"split": "trian"}, "did you mean 'train'"), ({"count": 0}, "count"), ({"size": 4}, "size"),
])
def test_bad_options_are_clear(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        Scenes(**{"count": 1, "size": 16, "root": tmp_path, **options})


def test_no_space_is_clear_and_leaves_nothing_published(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match="No space left"):
        Scenes("train", 2, 16, root=tmp_path)
    monkeypatch.undo()
    assert Scenes("train", 2, 16, root=tmp_path).images.any()


def test_the_command_makes_a_picture(tmp_path, monkeypatch, capsys):
    words = ["scenes", "--picture", str(tmp_path / "a.png"), "--seeds", "1", "--size", "32"]
    monkeypatch.setattr(sys, "argv", words)
    main()
    assert (tmp_path / "a.png").stat().st_size > 1000 and "wrote" in capsys.readouterr().out
