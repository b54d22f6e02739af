"""Mistakes, through the real programs: each is one line that says what, where and what to do."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from harness.checkpoint import load_file

PHOTOS = ["--data.name=folder", "--data.root=photos"]


def save_photos(folder, count, size=40, broken=()):
    """Tiny JPEGs of smooth noise; those in ``broken`` are cut off or no images at all."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"photo_{number:03d}.jpg"
        pixels = generator.integers(0, 255, (5, 5, 3), np.uint8)
        Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC).save(path)
        if number in broken:
            path.write_bytes(path.read_bytes()[:300] if number % 2 else b"no image")


@pytest.mark.parametrize("room, options, message", [
    ("pretrain", ["--epoch=1"], "unknown option --epoch (did you mean '--epochs'?): --help lists all"),
    ("pretrain", ["--epochs=many"], "option --epochs: expected int, got many"),
    ("pretrain", ["--data.name=foldr"], "unknown image source 'foldr' (did you mean 'folder'?): choose one of "),
    ("pretrain", ["--data.name=folder"], "data.root is not set: give the folder of the images with --data.root DIR"),
    ("pretrain", ["--data.name=folder", "--data.root=absent"], "the folder absent does not exist: give the folder "),
    ("pretrain", ["--data.name=folder", "--data.root=empty"], "the folder empty is empty: give the folder "),
    ("pretrain", ["--data.name=folder", "--data.root=labels"], "the folder labels holds no images, only other files "
                                                               "(2 × .npy), labels perhaps: give the folder "),
    ("pretrain", ["--data.name=folder", "--data.root=maps"], "the images in maps look like maps of class numbers, "),
    ("pretrain", ["--model.backbone=resnet19"], "'resnet19' (did you mean 'resnet18'?)"),
    ("pretrain", ["--model.backbone_options={chanels: [8]}"], "model.backbone 'resnet18' with {'chanels': [8]}: "),
    ("pretrain", ["--batch_size=65"], "64 samples do not fill a batch of 65: set --batch_size to at most 64"),
    ("pretrain", ["--momentum=2"], "momentum is 2.0: set it between 0 and 1"),
    ("pretrain", ["--optimizer.name=sdg"], "optimizer 'sdg' with {}: "),
    ("pretrain", ["--resume=absent.pt"], "--resume absent.pt: no checkpoint there"),
    ("transfer", ["--balance.nam=x"], "unknown option --balance.nam (did you mean '--balance.name'?)"),
    ("transfer", ["--tasks=[semseg, deph]"], "the data set has no labels for task 'deph' (did you mean 'depth'?)"),
    ("transfer", ["--tasks=[semseg, depth]", "--auxiliary=[depth]"], "task 'depth' is in --tasks and in --auxiliary"),
    ("transfer", ["--tasks=[]"], "no task chosen: choose among "),
    ("transfer", ["--tasks=semseg,depth"], "option --tasks: expected list, got semseg,depth: write a list in brackets "
                                           "and quotes, as '[semseg, depth]'"),
    ("transfer", ["--tasks=[semseg]", "depth"], "unknown option depth: --help lists all; write a list in brackets "),
    ("transfer", ["--model.backbone=resnet19"], "timm has no backbone 'resnet19' (did you mean 'resnet18'?)"),
    ("transfer", ["--model.name=baselin"], "unknown architecture 'baselin' (did you mean 'baseline'?)"),
    ("transfer", ["--model.weights=absent"], "absent"),
    ("transfer", ["--model.weights=damaged.pt"], "damaged.pt"),
    ("transfer", ["--balance.name=fixed", "--balance.weights={parts: 1}"], "balance.weights has a weight for 'parts'"),
    ("transfer", ["--evaluation.split=tests"], "the data set has no split 'tests' (did you mean 'test'?)"),
    ("transfer", ["--baseline=absent"], "absent has no results.json: give the folder of a finished transfer run"),
    ("transfer", ["--task_options={normals: {los: l1}}"], "task 'normals' has no option 'los' (did you mean 'loss'?)"),
])
def test_one_line(programs, room, options, message):
    (programs.folder / "empty").mkdir()
    for name in ("labels", "maps"):
        (programs.folder / name).mkdir()
        for number in range(2):
            np.save(programs.folder / "labels" / f"{number}.npy", np.zeros(2)) if name == "labels" else \
                Image.fromarray(np.full((8, 8), number, np.uint8)).save(programs.folder / name / f"{number}.png")
    (programs.folder / "damaged.pt").write_bytes(b"not a checkpoint")
    error = programs.main(room, "--output=run", *options).error
    assert message in error, error
    assert not (programs.folder / "run" / "results.json").exists()


def test_a_mistake_found_late_leaves_a_folder_that_still_works(programs):
    """The folder of a run that never began belongs to no configuration yet."""
    assert "sdg" in programs.main("pretrain", "--output=run", "--optimizer.name=sdg").error
    assert programs.main("pretrain", "--output=run", "--epochs=1").code == 0


def test_a_checkpoint_of_another_architecture(programs):
    import timm

    from pretrain import save_backbone

    options = {"channels": [8, 8, 16, 16]}
    save_backbone(programs.folder / "resnet.safetensors", timm.create_model("resnet18", num_classes=0, **options),
                  "resnet18", mean=(0.5,) * 3, std=(0.2,) * 3, input_size=(3, 32, 32), options=options)
    error = programs.main("transfer", "--output=run", "--model.weights=resnet.safetensors",
                          "--model.backbone=mobilenetv3_small_050", "--model.backbone_options={}").error
    assert "resnet.safetensors" in error and "mobilenetv3_small_050" in error
    assert error.endswith("set the architecture to resnet18 (option --model.backbone)")


@pytest.mark.parametrize("room, rate", [("pretrain", "1e38"), ("transfer", "1e38")])
def test_a_loss_that_is_not_finite(programs, room, rate):
    """The last good checkpoint stays."""
    options = ["--output=run", "--epochs=3", f"--optimizer.lr={rate}", "--optimizer.name=sgd", "--loop.save_steps=1"]
    error = programs.main(room, *options).error
    assert "not finite any more" in error and "Lower --optimizer.lr" in error
    last = programs.folder / "run" / "checkpoints" / "last.pt"
    assert not last.exists() and error.endswith(" and start again with --name NEW"), "the first step ruins the weights"
    assert not (programs.folder / "run" / "results.json").exists()


def test_a_run_that_diverged_goes_on_from_its_last_good_checkpoint(programs):
    """Huge but finite weights are saved after step 5; the loss of step 6 shows it, and step 4's come back."""
    (programs.folder / "ruin.py").write_text(
        "import torch\nfrom pretrain.engine import Pretraining\nstep = Pretraining.train_step\n"
        "def ruined(self, batch):\n    step(self, batch)\n"
        "    query = self.moco.query\n"
        "    if self.step == 5:\n"
        "        for value in (query.backbone.layer4[1].bn2.weight, query.head[0].weight, query.head[2].weight):\n"
        "            value.data.fill_(1e14)\n"
        "Pretraining.train_step = ruined\n")
    import pretrain.engine

    before = pretrain.engine.Pretraining.train_step
    options = ["--epochs=3", "--loop.save_steps=1", "--loop.log_steps=1"]
    try:
        error = programs.main("pretrain", "--output=run", "--plugin=ruin.py", *options).error
    finally:
        pretrain.engine.Pretraining.train_step = before
    last = programs.folder / "run" / "checkpoints" / "last.pt"
    state = load_file(last)
    assert state["step"] == 4 and "the loss is not finite any more by step 6" in error, error
    assert all(value.isfinite().all() for value in state["query"].values() if value.is_floating_point())
    assert error.endswith("go on from the last good checkpoint with --resume run/checkpoints/last.pt --name NEW")
    done = programs.main("pretrain", "--resume=run/checkpoints/last.pt", "--name=NEW", "--optimizer.lr=0.01", *options)
    assert done.code == 0 and "at step 4" in done.out, done.err


def test_a_full_disk_while_saving(programs):
    """A limit on the size of files stands for the disk; afterwards the same command goes on."""
    options = ["--output=run", "--epochs=2", "--loop.save_steps=2"]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        error = programs.main("pretrain", *options).error
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert error.startswith("cannot write run/checkpoints/last.pt: the file-size limit is reached. Free some space")
    assert os.listdir(programs.folder / "run" / "checkpoints") == []
    assert programs.main("pretrain", *options).code == 0


@pytest.mark.parametrize("room", ["pretrain", "transfer"])
def test_a_run_folder_that_is_held(programs, room):
    (programs.folder / "run").mkdir()
    code = ("import fcntl, sys; f = open('run/.lock', 'a+'); fcntl.lockf(f, fcntl.LOCK_EX); f.write('process 7 on h'); "
            "f.flush(); print('held', flush=True); sys.stdin.read()")
    holder = subprocess.Popen([sys.executable, "-c", code], cwd=programs.folder, stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    try:
        assert programs.main(room, "--output=run").error == (
            "run folder run is in use by process 7 on h: wait for it, or choose another --name or --output")
    finally:
        holder.communicate("")


@pytest.mark.parametrize("room", ["pretrain", "transfer"])
def test_a_run_folder_of_another_configuration(programs, room):
    assert programs.main(room, "--output=run", "--epochs=1").code == 0
    before = (programs.folder / "run" / "results.json").read_bytes()
    error = programs.main(room, "--output=run", "--epochs=2", "--seed=3").error
    assert error == ("run folder run belongs to another configuration (epochs: 1 -> 2; seed: 0 -> 3): choose another "
                     "--name or --output")
    assert (programs.folder / "run" / "results.json").read_bytes() == before


def test_a_finished_run_that_is_to_be_longer(programs):
    """The message says what works."""
    assert programs.main("transfer", "--output=run", "--tasks=[depth]", "--epochs=1").code == 0
    error = programs.main("transfer", "--output=run", "--tasks=[depth]", "--epochs=2").error
    advice = "train on from it with --resume run/checkpoints/last.pt --name NEW"
    assert error.endswith(f"(epochs: 1 -> 2): choose another --name or --output, or {advice}")
    longer = programs.main("transfer", "--tasks=[depth]", "--epochs=2", *advice.split()[-4:])
    assert longer.code == 0 and "continues run/checkpoints/last.pt at step" in longer.out, longer.err


def test_a_foreign_folder(programs):
    (programs.folder / "thesis").mkdir()
    (programs.folder / "thesis" / "chapter.tex").touch()
    error = programs.main("pretrain", "--output=thesis").error
    assert error == ("run folder thesis holds 'chapter.tex' and is not a run of ours: choose another --name or "
                     "--output")


def test_a_checkpoint_with_code_in_it(programs):
    class Evil:
        def __reduce__(self):
            return open, (str(programs.folder / "witness"), "w")

    torch.save({"format": "tasklift-pretrain/1", "step": Evil()}, programs.folder / "evil.pt")
    for room, option in (("pretrain", "--resume=evil.pt"), ("transfer", "--model.weights=evil.pt")):
        error = programs.main(room, "--output=run_" + room, option).error
        assert "evil.pt" in error and "open" in error and "code" in error
    assert not (programs.folder / "witness").exists()


def test_three_unreadable_images_are_skipped_counted_and_listed(programs):
    save_photos(programs.folder / "photos", 192, broken={5, 80, 191})
    done = programs.main("pretrain", "--output=run", *PHOTOS, "--epochs=1", "--workers=1", "--loop.log_steps=4")
    assert done.code == 0, done.err
    results = json.loads((programs.folder / "run" / "results.json").read_text())
    assert sorted(results["unreadable"]) == ["photo_005.jpg", "photo_080.jpg", "photo_191.jpg"]
    assert all(results["unreadable"].values()) and results["images"] == 192
    assert done.err.count("skipped an unreadable image: ") == 3
    assert "photo_080.jpg" in (programs.folder / "run" / "report.html").read_text()


def test_half_unreadable_stops_the_run(programs):
    save_photos(programs.folder / "photos", 64, broken=set(range(0, 64, 2)))
    error = programs.main("pretrain", "--output=run", *PHOTOS, "--epochs=1", "--workers=1").error
    assert " cannot be read, the first being photo_" in error
    assert error.endswith("): mend the folder, or raise --max_unreadable")


def test_unreadable_images_that_fill_the_queue_count(programs):
    save_photos(programs.folder / "photos", 32, broken=set(range(0, 32, 2)))
    error = programs.main("pretrain", "--output=run", *PHOTOS, "--epochs=1", "--queue.fill=true").error
    assert " cannot be read, the first being photo_" in error
    assert not (programs.folder / "run" / "metrics.jsonl").read_text(), "found before the first step"


def test_images_of_every_kind_pretrain_together(programs):
    folder = programs.folder / "photos"
    save_photos(folder, 4)
    image = Image.open(folder / "photo_000.jpg").resize((60, 44))
    image.convert("L").save(folder / "grey.png")
    image.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(np.asarray(image)[..., 0].astype(np.uint16) * 257).save(folder / "sixteen.png")
    image.convert("P").save(folder / "palette.png")
    image.convert("RGBA").rotate(30).save(folder / "transparent.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(folder / "turned.jpg", exif=exif)
    image.resize((20, 20)).save(folder / "small.png")
    image.resize((8000, 400)).save(folder / "large.jpg")
    done = programs.main("pretrain", "--output=run", *PHOTOS, "--batch_size=6", "--queue.size=16", "--epochs=1")
    assert done.code == 0, done.err
    results = json.loads((programs.folder / "run" / "results.json").read_text())
    assert results["images"] == 12 and results["unreadable"] == {}
