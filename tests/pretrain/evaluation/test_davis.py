"""DAVIS' folder as it is published, and what may be wrong with it."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from harness.errors import UserError
from pretrain.evaluation.data.davis import Davis
from pretrain.evaluation.labelled import LABELLED
from scenes import generate
from scenes.dataset import seed_of
from scenes.export import LAYOUTS, export
from scenes.video import film

SIZE = (32, 48)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setattr(LAYOUTS.get("davis"), "frames", 4)
    place = export("davis", tmp_path_factory.mktemp("davis") / "DAVIS", {"train": 1, "val": 2}, SIZE)
    patch.undo()
    return place


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "DAVIS")


def test_videos_come_back_as_they_were_written(written):
    data = LABELLED.get("davis")(root=str(written.parent))
    assert [video.name for video in data.videos()] == ["val-room-000", "val-room-001"]
    assert "videos" in data.remarks()[0]  # not the published 30
    for number, video in enumerate(data.videos()):
        frames = list(film(generate(seed_of("val", number)), *SIZE, 4))
        assert len(video) == 4 and [video.frame_name(i) for i in range(4)] == ["00000", "00001", "00002", "00003"]
        for place, (image, objects) in enumerate(frames):
            assert video.frame(place).shape == (*SIZE, 3) and video.frame(place).dtype == np.uint8
            assert np.abs(video.frame(place).astype(int) - image).mean() < 12
            assert video.objects(place).dtype == np.uint8
            np.testing.assert_array_equal(video.objects(place), objects)
    assert [video.name for video in Davis(str(written), "train").videos()] == ["train-room-000"]


def test_the_fingerprint_is_of_what_lies_in_the_folder(folder, written):
    whole = Davis(str(folder)).fingerprint()
    assert whole == Davis(str(written)).fingerprint()
    assert whole != Davis(str(folder), "train").fingerprint()
    path = folder / "Annotations/480p/val-room-001/00003.png"
    mask = np.array(Image.open(path))
    Image.fromarray(mask[::-1]).save(path)
    assert Davis(str(folder)).fingerprint() != whole


def test_what_is_ambiguous_is_no_object(folder):
    path = folder / "Annotations/480p/val-room-000/00002.png"
    mask = np.array(Image.open(path))
    mask[:4] = 255
    Image.fromarray(mask).save(path)
    assert not Davis(str(folder)).videos()[0].objects(2)[:4].any()


def test_videos_annotated_in_their_first_frame_only(folder):
    for number in (1, 2, 3):
        (folder / f"Annotations/480p/val-room-000/0000{number}.png").unlink()
    video = Davis(str(folder)).videos()[0]
    assert video.objects(0) is not None and [video.objects(number) for number in (1, 2, 3)] == [None] * 3


def test_other_sets_may_be_annotated_sparsely(folder):
    (folder / "Annotations/480p/val-room-001/00001.png").unlink()
    video = Davis(str(folder), sparse=True).videos()[1]
    assert video.objects(1) is None and video.objects(2) is not None


def _remove(path):
    return lambda folder: shutil.rmtree(folder / path) if (folder / path).is_dir() else (folder / path).unlink()


def _append(line):
    def change(folder):
        with open(folder / "ImageSets/2017/val.txt", "a") as file:
            file.write(line + "\n")
    return change


def _empty(path):
    def change(folder):
        for file in (folder / path).iterdir():
            file.unlink()
    return change


MASK, IMAGE = "Annotations/480p/val-room-001/00000.png", "JPEGImages/480p/val-room-001/00000.jpg"


@pytest.mark.parametrize(("change", "options", "message"), [
    (_remove("JPEGImages"), {}, "no folder JPEGImages/480p"),
    (_remove("Annotations"), {}, "no folder Annotations/480p with annotations"),
    (_remove("ImageSets"), {}, "no folder ImageSets/2017 with lists"),
    (_remove("ImageSets/2017/val.txt"), {}, r"no list val.txt: set --data.split to one of train"),
    (None, {"split": "vall"}, "no list vall.txt; did you mean 'val'|no list vall.txt.*did you mean 'val'"),
    (None, {"resolution": "Full-Resolution"}, "no folder Full-Resolution.*to one of 480p"),
    (_append("bear"), {}, r"val.txt, line 3: video bear has no folder .*JPEGImages/480p/bear of frames"),
    (_append("val-room-000"), {}, "line 3: val-room-000 is in line 1 already"),
    (_append("../480p"), {}, "line 3: '../480p' is not the name of a video"),
    (lambda folder: (folder / "ImageSets/2017/val.txt").write_text("\n"), {}, "names no videos"),
    (_remove("Annotations/480p/val-room-001"), {}, "line 2: video val-room-001 has no folder .*of annotations"),
    (_empty("JPEGImages/480p/val-room-001"), {}, "line 2: video val-room-001 has no frames in"),
    (_remove(MASK), {}, r"no annotation 00000.png of frame 00000.jpg \(1 of 4 are missing\)"),
    (_remove(MASK), {"sparse": True}, "no annotation 00000.png"),
    (_remove("Annotations/480p/val-room-001/00002.png"), {}, "no annotation 00002.png.*--data.sparse"),
    (_remove("JPEGImages/480p/val-room-001/00003.jpg"), {}, "00003.png annotates a frame that is not in"),
])
def test_mistakes_are_named_before_anything_is_measured(folder, change, options, message):
    if change:
        change(folder)
    with pytest.raises(UserError, match=message) as error:
        Davis(str(folder), **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("path", "content", "message"), [
    (MASK, Image.new("P", (9, 7)), r"00000.png is 7×9 pixels and its frame .*00000.jpg 32×48"),
    (MASK, Image.new("RGB", (48, 32)), "00000.png is a picture of mode RGB"),
    (MASK, b"nothing", "00000.png cannot be read"),
    (IMAGE, b"nothing", "00000.jpg cannot be read"),
])
def test_mistakes_in_files_are_named_when_they_are_read(folder, path, content, message):
    if isinstance(content, bytes):
        (folder / path).write_bytes(content)
    else:
        content.save(folder / path)
    video = Davis(str(folder)).videos()[1]
    with pytest.raises(UserError, match=message) as error:
        video.frame(0)
        video.objects(0)
    assert "\n" not in str(error.value)


def test_the_root_must_be_there(tmp_path):
    for root, message in ((None, "data.root is not set"), (str(tmp_path / "no"), "does not exist")):
        with pytest.raises(UserError, match=message):
            Davis(root)


def test_the_check_reads_frames_and_annotations(programs, folder):
    done = programs.call("pretrain.evaluate", "data", "check", "davis", str(folder))
    assert done.code == 0 and "2 videos of 8 frames" in done.out and "published with 30 videos" in done.out
    Image.new("P", (9, 7)).save(folder / "Annotations/480p/val-room-001/00002.png")
    for more in ((), ("--all=true",)):
        error = programs.call("pretrain.evaluate", "data", "check", "davis", str(folder), *more).error
        assert "00002.png is 7×9 pixels" in error
