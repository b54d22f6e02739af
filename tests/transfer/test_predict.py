"""Predictions of a run: files, sizes, bad input, films, model files."""

from __future__ import annotations

import json
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from harness.errors import UserError

OPTIONS = [
    "--data.name=scenes", "--data.train_count=4", "--data.val_count=2", "--data.test_count=3", "--data.size=48",
    "--augmentation.size=32", "--epochs=1", "--batch_size=4", "--workers=0", "--evaluation.panels=1",
    "--baseline=none", "--model.backbone=resnet18", "--model.backbone_options={channels: [8, 8, 16, 16]}",
    "--model.head=fcn", "--threads=1", "--loop.trackers=[]", "--tasks=[semseg, depth, normals, edge, scene]",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, cache):
    """A finished run."""
    from harness.config import load
    from harness.world import start
    from transfer.config import TransferConfig
    from transfer.single_run import run_single

    folder = tmp_path_factory.mktemp("predict") / "run"
    config = load(TransferConfig, [*OPTIONS, f"--output={folder}"])
    assert run_single(config, start(threads=1, cpu=True)) == 0
    return folder


@pytest.fixture(scope="module")
def trained(folder):
    from transfer.prediction.run import load_run

    return load_run(folder, torch.device("cpu"))


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_run_predicts_what_was_evaluated(folder, trained):
    """Metrics of the predictor's maps on the test split are the run's results."""
    from transfer.prediction.predictor import Predictor

    config = trained.config
    data = config.data.build()
    tasks = data.choose(config.tasks)
    predictor, metrics = Predictor(trained), {name: task.metric() for name, task in tasks.items()}
    for sample in data.split("test"):
        predictions = predictor.predictions(predictor.batch([sample["image"]]))
        for name, task in tasks.items():
            target = torch.from_numpy(np.asarray(sample["targets"][name], task.dtype))
            target = target.permute(2, 0, 1) if target.ndim == 3 else target
            task.update(metrics[name], predictions[name], target[None])
    results = json.loads((folder / "results.json").read_text())["metrics"]
    for name, metric in metrics.items():
        got = metric.compute()
        for key, value in results[name].items():
            if value is not None and value == value:
                assert got[key] == pytest.approx(value, rel=1e-4, abs=1e-3), (name, key)


@pytest.mark.parametrize("size", [(48, 48), (37, 61), (1, 5), (130, 33)])
def test_maps_have_the_size_of_their_image(trained, size):
    from transfer.prediction.predictor import Predictor

    (found,) = Predictor(trained)([picture(*size)])
    assert found["semseg"].shape == found["depth"].shape == found["edge"].shape == size
    assert found["normals"].shape == (*size, 3) and np.allclose(np.linalg.norm(found["normals"], axis=2), 1, atol=1e-4)
    assert found["semseg"].dtype == np.uint8 and found["scene"].ndim == 0
    (small,) = Predictor(trained, size=32)([picture(*size)])
    assert small["depth"].shape == size


def test_a_network_that_refuses_a_size_sees_a_padded_image(trained):
    from transfer.prediction.predictor import Predictor

    predictor, shapes = Predictor(trained), []
    forward = predictor._forward

    def strict(images):
        shapes.append(tuple(images.shape[-2:]))
        if images.shape[-1] % 32 or images.shape[-2] % 32:
            raise RuntimeError("sizes must be multiples of 32")
        return forward(images)

    predictor._forward = strict
    for _ in range(2):
        (found,) = predictor([picture(40, 64)])
    assert found["depth"].shape == (40, 64) and shapes == [(40, 64), (64, 64), (64, 64)]
    predictor._forward = lambda images: (_ for _ in ()).throw(RuntimeError("never"))
    with pytest.raises(UserError, match="--size"):
        predictor([picture(33, 33)])


def test_views_are_undone_and_averaged(trained):
    """A network that sees the mirrored and the plain image gives the mirrored prediction for the mirrored image."""
    from transfer.prediction.predictor import Predictor
    from transfer.transforms import Geometry

    image = picture(32, 48)
    predictor = Predictor(trained, flip=True, scales=(1.0, 1.5))
    (plain,), (mirrored,) = predictor([image]), predictor([np.ascontiguousarray(image[:, ::-1])])
    geometry = Geometry(32, 48, 32, 48, flip=True)
    for name in ("depth", "normals", "edge"):
        expected = predictor.tasks[name].apply(plain[name], geometry)
        assert np.allclose(mirrored[name], expected, atol=1e-4), name
    (once,) = Predictor(trained)([image])
    assert not np.allclose(once["depth"], plain["depth"], atol=1e-3)
    with pytest.raises(UserError, match="above 0"):
        Predictor(trained, scales=(0.0,))
    with pytest.raises(UserError, match="no task 'dept'"):
        Predictor(trained, tasks=["dept"])


def test_depth_of_an_enlarged_image_is_multiplied(trained):
    from mtl_heads.output import Output
    from transfer.prediction.views import Views

    class Constant(torch.nn.Module):
        def forward(self, images, tasks=None):
            return Output({"depth": torch.ones(len(images), 1, *images.shape[-2:])}, [])

    views = Views(Constant(), trained.tasks, scales=(1.0, 3.0))
    assert torch.allclose(views(torch.zeros(1, 3, 8, 8)).predictions["depth"], torch.tensor(2.0))  # (1 + 3) / 2


def test_files(programs, folder, tmp_path):
    """Two images of one name, one in a folder below, one that is damaged."""
    images = tmp_path / "images"
    (images / "deep").mkdir(parents=True)
    Image.fromarray(picture(40, 52)).save(images / "a.png")
    Image.fromarray(picture(31, 33, 1)).convert("L").save(images / "a.jpg")
    Image.fromarray(picture(48, 48, 2)).save(images / "deep" / "c.png")
    (images / "bad.png").write_bytes(b"\x89PNG nothing")
    done = programs.call("transfer.predict", "--run", str(folder), "--threads=1", "--output", "out", str(images))
    assert done.code == 1 and "3 images predicted" in done.out
    assert done.err.count("skipped") == 1 and "bad.png" in done.err and "1 could not be read" in done.err
    out = programs.folder / "out"
    assert sorted(path.name for path in (out / "depth").glob("*")) == [
        "a_jpg.npy", "a_jpg.png", "a_png.npy", "a_png.png", "deep"]
    depth, semseg = np.load(out / "depth" / "a_png.npy"), np.load(out / "semseg" / "deep" / "c.npy")
    assert depth.shape == (40, 52) and depth.dtype == np.float32
    with Image.open(out / "semseg" / "deep" / "c.png") as stored:
        assert stored.mode == "P" and (np.array(stored) == semseg).all()
    with Image.open(out / "depth" / "a_png.png") as stored:
        millimetres = np.array(stored)
    assert np.abs(millimetres / 1000 - np.clip(depth, 0, None)).max() <= 5.1e-4
    with Image.open(out / "edge" / "a_png.png") as stored:
        assert np.abs(np.array(stored) / 255 - np.load(out / "edge" / "a_png.npy")).max() <= 2e-3 + 1e-6
    said = json.loads((out / "images.json").read_text())
    assert set(said) == {"a_png", "a_jpg", "deep/c"} and said["a_png"]["scene"]["caption"]
    scores = said["a_png"]["scene"]["scores"]
    assert sum(scores.values()) == pytest.approx(1, abs=1e-4) and len(scores) > 2
    assert max(scores, key=scores.get) == said["a_png"]["scene"]["caption"]
    assert json.loads((out / "tasks.json").read_text())["semseg"]["classes"][0] == "wall"
    for name in said:
        with Image.open(out / "panels" / f"{name}.png") as page:
            assert page.mode == "RGB" and page.width > 400


def test_a_gif_is_a_film(programs, folder, tmp_path):
    frames = [Image.fromarray(picture(32, 32, seed)) for seed in range(5)]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:], duration=100)
    done = programs.call("transfer.predict", "--run", str(folder), "--threads=1", "--output", "out", "--every=2",
                         "--formats", "npy", "--tasks", "depth", "--", str(tmp_path / "film.gif"))
    assert done.code == 0, done.err
    out = programs.folder / "out"
    assert [path.name for path in sorted((out / "depth" / "film").iterdir())] == [
        "000000.npy", "000002.npy", "000004.npy"]
    assert not (out / "semseg").exists()


def test_films_need_a_library_or_are_read(programs, folder, tmp_path, monkeypatch):
    from transfer.prediction.video import Video, VideoWriter, can_write

    path = tmp_path / "film.mp4"
    if can_write():
        writer = VideoWriter(path, Fraction(10))
        for _ in range(4):
            writer.add(np.full((32, 48, 3), 128, np.uint8))
        writer.close()
        assert [frame.shape for frame in Video(path)] == [(32, 48, 3)] * 4
        done = programs.call("transfer.predict", "--run", str(folder), "--threads=1", "--output", "out",
                             "--formats", "panel", "--", str(path))
        assert done.code == 0, done.err
        assert (programs.folder / "out/panels/film.mp4").stat().st_size > 0
    path.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "av", None)
    error = programs.call("transfer.predict", "--run", str(folder), str(path)).error
    assert "PyAV" in error and "pip install av" in error


def test_a_damaged_film_is_named(programs, folder, tmp_path, monkeypatch):
    from harness.images import UnreadableImage
    from transfer.prediction import sources

    def broken(path):
        raise UnreadableImage(str(path), "no film")

    monkeypatch.setattr(sources, "Video", broken)
    (tmp_path / "film.mp4").write_bytes(b"nothing")
    done = programs.call("transfer.predict", "--run", str(folder), "--threads=1", "--output", "out",
                         str(tmp_path / "film.mp4"))
    assert done.code == 1 and "film.mp4: no film" in done.err and "Traceback" not in done.err


def test_frames_of_a_film_are_brought_to_the_size_of_the_first(tmp_path):
    from transfer.prediction.video import Video, VideoWriter, can_write

    if not can_write():
        pytest.skip("films are written with PyAV")
    writer = VideoWriter(tmp_path / "film.mp4", Fraction(10))
    for height, width in ((32, 48), (40, 48), (20, 31), (33, 49)):
        writer.add(np.zeros((height, width, 3), np.uint8))
    writer.close()
    frames = list(Video(tmp_path / "film.mp4"))
    assert [frame.shape for frame in frames] == [(32, 48, 3)] * 4
    assert frames[2][:16, :24].mean() < 20 and frames[2][24:].mean() > 235 and frames[3].mean() < 20


def test_a_point_that_is_nowhere_is_null(tmp_path):
    from transfer.prediction.sources import Picture
    from transfer.prediction.writing import Writer
    from transfer.tasks import build_task

    writer = Writer(tmp_path, {"spot": build_task("localization", "spot")}, ("npy",))
    for name, value in (("empty", 0), ("full", 1)):
        writer.add(Picture(name, name), picture(4, 6), {"spot": np.full((4, 6), value, np.float32)})
    writer.close()
    said = json.loads((tmp_path / "images.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert said["empty"]["spot"]["point"] is None and said["full"]["spot"]["point"] == [3, 2]


def test_a_model_file_that_cannot_be_written_is_refused_before_images_are_predicted(programs, folder, tmp_path):
    Image.fromarray(picture(32, 32)).save(tmp_path / "a.png")
    for options, message in ((["--onnx", "m.pt2"], "must end in .onnx"),
                             (["--scales", "1", "2", "--export", "m.pt2"], "leave out --flip")):
        done = programs.call("transfer.predict", "--run", str(folder), "--output", "out", *options, "--",
                             str(tmp_path / "a.png"))
        assert message in done.error and not (programs.folder / "out").exists()


@pytest.mark.parametrize(("options", "message"), [
    ([], "nothing to do"), (["nowhere.png"], "no such file"), (["."], "no image in this folder"),
    (["--size", "0", "--export", "m.pt2"], "size"), (["--export", "model.pt"], "must end in .pt2"),
    (["--flip", "--export", "m.pt2"], "leave out --flip"), (["--tasks", "dept", "--export", "m.pt2"], "no task 'dept'"),
    (["--batch_size=0", "--export", "m.pt2"], "at least 1"),
])
def test_mistakes_are_named(programs, folder, options, message):
    assert message in programs.call("transfer.predict", "--run", str(folder), *options).error


def test_names_of_tasks_are_checked_before_anything_is_loaded(programs, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("transfer.prediction.run.load_run", lambda *_: pytest.fail("loaded"))
    Image.fromarray(picture(8, 8)).save(tmp_path / "a.png")
    error = programs.call("transfer.predict", "--run", str(folder), "a.png", "--tasks", "depth", "sems").error
    assert error.startswith("the run has no task 'sems'") and "semseg" in error


def test_what_is_no_image(tmp_path):
    from transfer.prediction.sources import Sources

    for name in ("run.yaml", "broken.jpg"):
        (tmp_path / name).write_text("name: run\n")
        with pytest.raises(UserError, match=f"{name}: no image, film or folder$"):
            Sources([str(tmp_path / name)])
    Image.fromarray(picture(8, 8)).save(tmp_path / "a.png")
    names = [str(tmp_path / name) for name in ("a.png", "run.yaml", "broken.jpg")]
    sources = Sources(names)
    assert [one.name for one in sources] == ["a"] and len(sources.failed) == 2
    with pytest.raises(UserError, match="no image, film or folder .nor is the other one.$"):
        Sources(names[1:])


def test_probabilities_of_image_tasks():
    from transfer.tasks import build_task

    logits = torch.tensor([0.0, 2.0, -1.0])
    for kind, expected in (("classification", logits.softmax(0)), ("scene", logits.softmax(0)),
                           ("attributes", logits.sigmoid())):
        scores = build_task(kind, "it", ("a", "b", "c")).scores(logits)
        assert list(scores) == ["a", "b", "c"] and list(scores.values()) == pytest.approx(expected.tolist(), abs=1e-6)
    assert build_task("semseg", "it", ("a", "b")).scores(torch.zeros(2, 4, 4)) == {}


def test_a_run_that_is_not_there(programs):
    assert "no results.json" in programs.call("transfer.predict", "--run", "nothing", "--export", "m.pt2").error


def test_labels_that_a_run_recorded_stand_in_for_its_data(folder, tmp_path, monkeypatch):
    """Predicting needs neither the data set's folder nor the file of the starting weights."""
    import shutil

    from transfer.data.scenes import ScenesData
    from transfer.prediction.run import load_run

    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    labels = {name: {"task": label.task, "classes": list(label.classes)} for name, label in ScenesData().labels.items()}
    results = json.loads((copy / "results.json").read_text())
    (copy / "results.json").write_text(json.dumps({**results, "labels": labels}))
    text = (copy / "config.yaml").read_text()
    assert "weights: null" in text
    (copy / "config.yaml").write_text(text.replace("weights: null", "weights: gone.pt", 1))

    def gone(self):
        raise UserError("no folder")

    monkeypatch.setattr(ScenesData, "labels", property(gone))
    run = load_run(copy, torch.device("cpu"))
    assert list(run.tasks["semseg"].classes) == labels["semseg"]["classes"]


@pytest.mark.slow
def test_model_files_give_the_networks_numbers(folder, trained, tmp_path):
    from transfer.prediction.export import export

    path = tmp_path / "model.pt2"
    line = export(trained.network, list(trained.tasks), path, (64, 96), 3)
    assert "images of any number and size" in line and "differs" in line
    loaded = torch.export.load(path).module()
    for shape in ((1, 64, 96), (3, 80, 80)):
        images = torch.randint(0, 256, (shape[0], 3, *shape[1:]), dtype=torch.uint8)
        with torch.no_grad():
            expected = trained.network.model(trained.network.normalise(images)).predictions
            got = dict(zip(trained.tasks, loaded(images), strict=True))
        for name, value in expected.items():
            assert torch.allclose(got[name], value, atol=1e-4, rtol=1e-4), name


def test_a_file_that_gives_other_numbers_is_not_kept(trained, tmp_path, monkeypatch):
    from transfer.prediction import export as room

    def other(module, example, path):
        return b"content", lambda images: [value.numpy() + 1 for value in module(images)]

    monkeypatch.setattr(room, "_torch", other)
    with pytest.raises(UserError, match="differ from the network's"):
        room.export(trained.network, list(trained.tasks), tmp_path / "m.pt2", (32, 32), 3)
    assert not list(tmp_path.iterdir())


def test_onnx_without_its_libraries_says_what_to_install(trained, tmp_path, monkeypatch):
    from transfer.prediction import export as room

    monkeypatch.setattr(room, "_installed", lambda name: False)
    with pytest.raises(UserError, match="pip install onnx onnxscript onnxruntime"):
        room.export(trained.network, ["depth"], tmp_path / "m.onnx", (32, 32), 3)


@pytest.mark.slow
def test_onnx(trained, tmp_path):
    pytest.importorskip("onnxscript")
    from transfer.prediction.export import export

    line = export(trained.network, list(trained.tasks), tmp_path / "m.onnx", (64, 96), 3)
    assert "images of any number and size" in line and "differs" in line
    assert (tmp_path / "m.onnx").stat().st_size > 0


def test_evaluating_again(programs, folder):
    """Without views the run's own figures; with them others."""
    done = programs.call("transfer.evaluation", str(folder))
    assert done.code == 0, done.err
    plain = json.loads((folder / "evaluation.json").read_text())["metrics"]
    assert plain == json.loads((folder / "results.json").read_text())["metrics"]
    assert programs.call("transfer.evaluation", str(folder), "--flip", "--scales", "1", "1.5").code == 0
    views = json.loads((folder / "evaluation.json").read_text())
    assert views["flip"] and views["metrics"]["depth"]["RMSE"] != plain["depth"]["RMSE"]
    ratio = [str(folder), "--ratio", "scene"]
    assert "has no task 'cup'" in programs.call("transfer.evaluation", *ratio, "cup", "x").error
    assert "two classes" in programs.call("transfer.evaluation", *ratio, "edge", "edge").error
