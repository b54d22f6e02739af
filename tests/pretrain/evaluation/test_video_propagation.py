"""The protocol: what it predicts, what it counts, what it draws and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from harness.errors import UserError
from pretrain.evaluation.data.scenes import LabelledScenes
from pretrain.evaluation.features import FeatureConfig, Features
from pretrain.evaluation.labelled import Labelled, Video
from pretrain.evaluation.propagation import Propagation
from pretrain.evaluation.protocols.video_propagation import VideoPropagation
from pretrain.evaluation.region_and_boundary import boundary_accuracy, region_similarity
from pretrain.evaluation.subject import Subject
from pretrain.evaluation.video_pictures import overlay, write_mask
from scenes import generate
from scenes.dataset import seed_of
from scenes.export import LAYOUTS, export
from scenes.video import film


class Made(Video):
    """Coloured squares that move over noise."""

    def __init__(self, name="made", frames=5, numbers=(1, 2), step=2, size=(64, 80), annotated=None):
        rng = np.random.default_rng(len(name))
        self.name, self.annotated = name, annotated
        self.images, self.masks = [], []
        ground = rng.integers(60, 120, (*size, 3), np.uint8)
        textures = rng.integers(0, 256, (len(numbers), 24, 24, 3), np.uint8)
        for frame in range(frames):
            image, mask = ground.copy(), np.zeros(size, np.uint8)
            for place, (number, texture) in enumerate(zip(numbers, textures, strict=True)):
                top, left = 8 + 24 * place % 40, 8 + 32 * place + step * frame
                image[top : top + 24, left : left + 24] = texture
                mask[top : top + 24, left : left + 24] = number
            self.images.append(image)
            self.masks.append(mask)

    def __len__(self):
        return len(self.images)

    def frame(self, number):
        return self.images[number]

    def objects(self, number):
        return self.masks[number] if self.annotated is None or number in self.annotated else None


class Videos(Labelled):
    splits, names = (), {"video": ()}

    def __init__(self, *videos):
        self._videos = videos

    def fingerprint(self):
        return "made"

    def videos(self):
        return self._videos


@pytest.fixture(scope="module")
def features():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Features(Subject("random:resnet10t"), FeatureConfig(), torch.device("cpu"))
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def drawing(request, monkeypatch):
    """Pictures take longer than these measurements: only tests that ask for them draw."""
    if "drawn" not in request.fixturenames:
        for name in ("draw_strips", "draw_course"):
            monkeypatch.setattr(f"pretrain.evaluation.protocols.video_propagation.{name}", lambda *args: args[-1])


@pytest.fixture
def drawn():
    """Asks for pictures."""


def measure(features, folder, *videos, **options):
    return VideoPropagation(**options).measure(features, Videos(*videos), folder, 0)


def test_the_numbers_are_those_of_the_masks_that_are_written(features, tmp_path, drawn):
    """J, F and their means once more, from the files: objects of all videos, without first and last frames."""
    videos = [Made("one", 5, (1, 2)), Made("another", 4, (3,), step=5)]
    found = measure(features, tmp_path, *videos, save_masks=True, animate=True)
    regions, boundaries = [], []
    for video in videos:
        predicted = [np.array(Image.open(tmp_path / "masks" / video.name / f"{number:05d}.png"))
                     for number in range(len(video))]
        np.testing.assert_array_equal(predicted[0], video.masks[0])
        for number in np.unique(video.masks[0])[1:]:
            pairs = [(predicted[i] == number, video.masks[i] == number) for i in range(1, len(video) - 1)]
            regions.append([region_similarity(*pair) for pair in pairs])
            boundaries.append([boundary_accuracy(*pair) for pair in pairs])
        assert set(np.unique(predicted)) <= set(np.unique(video.masks[0]))
    assert [len(values) for values in regions] == [3, 3, 2]
    for name, values in (("j", regions), ("f", boundaries)):
        assert found.metrics[f"{name}_mean"] == pytest.approx(100 * np.mean([np.mean(item) for item in values]))
        assert found.metrics[f"{name}_recall"] == pytest.approx(
            100 * np.mean([np.mean(np.array(item) > 0.5) for item in values]))
    assert found.metrics["j_and_f"] == pytest.approx((found.metrics["j_mean"] + found.metrics["f_mean"]) / 2)
    header, rows = found.tables["videos"]
    assert [row[:3] for row in rows] == [("one", 2, 3), ("another", 1, 2)] and len(header) == len(rows[0])
    assert float(rows[1][4]) == pytest.approx(100 * np.mean(regions[2]), abs=0.051)
    assert [path.name for path, _ in found.files] == ["masks", "animations"]
    assert sorted(path.name for path in (tmp_path / "animations").iterdir()) == ["another.gif", "one.gif"]
    assert Image.open(tmp_path / "animations" / "one.gif").n_frames == 5
    for path, _ in found.figures:
        assert Image.open(path).size[0] > 300
    assert "3 objects in 2 videos" in found.remarks[1] and "layer3" in found.remarks[0] and "8 × 10" in found.remarks[0]


def test_options_reach_the_propagation(features, tmp_path, monkeypatch):
    seen = []

    class Seen(Propagation):
        def __init__(self, *arguments, **options):
            seen.append(options)
            super().__init__(*arguments, **options)

    monkeypatch.setattr("pretrain.evaluation.protocols.video_propagation.Propagation", Seen)
    options = {"top": 3, "context": 2, "radius": 4, "temperature": 0.3, "first_anywhere": True}
    measure(features, tmp_path, Made(frames=3), **options)
    assert seen == [options]


def test_labels_are_shares_of_a_place_and_pixels_lie_between_places(features, tmp_path):
    """The mask of the second frame once more, of objects that do not lie as the places do."""
    video = Made(frames=3, step=3)
    for things in (video.images, video.masks):
        things[:] = [np.roll(thing, (3, 5), (0, 1)) for thing in things]
    measure(features, tmp_path, video, save_masks=True)
    model = features.subject.build(output_stride=8)
    place = features.place(model, "layer3")
    first, second = (features.maps(model, features.normalise(image[None]), place)[0] for image in video.images[:2])
    shares = torch.from_numpy(np.stack([video.masks[0] == number for number in range(3)]))[None].float()
    moving = Propagation(first, torch.nn.functional.avg_pool2d(shares, 8)[0])
    pixels = torch.nn.Upsample(scale_factor=8, mode="bilinear")(moving.step(second)[None])[0]
    np.testing.assert_array_equal(Image.open(tmp_path / "masks" / "made" / "00001.png"), pixels.argmax(0).numpy())


def test_again_is_the_same(features, tmp_path):
    first, second = (measure(features, tmp_path, Made()) for _ in range(2))
    assert first.metrics == second.metrics and not (tmp_path / "masks").exists()


def test_a_measurement_that_was_stopped_goes_on_with_the_next_video(features, tmp_path, monkeypatch):
    videos = [Made("one"), Made("two"), Made("three")]
    whole = measure(features, tmp_path / "whole", *videos, save_masks=True)
    stopped = tmp_path / "stopped"

    def stop(number):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(videos[2], "frame", stop)
        with pytest.raises(KeyboardInterrupt):
            measure(features, stopped, *videos, save_masks=True)
    kept = stopped / "done" / "two.npz"
    kept.write_bytes(kept.read_bytes()[:500])  # damaged: measured again
    seen = []
    for video in videos:
        monkeypatch.setattr(video, "frame", lambda number, video=video: (seen.append((video.name, number)),
                                                                         video.images[number])[1])
    found = measure(features, stopped, *videos, save_masks=True)
    assert seen == [("one", 0), *((name, number) for name in ("two", "three") for number in range(5))]
    assert found.metrics == whole.metrics and found.tables == whole.tables and found.remarks == whole.remarks
    assert not kept.parent.exists()
    assert sorted(path.name for path in (stopped / "masks").iterdir()) == ["one", "three", "two"]


def test_a_still_video_keeps_its_objects(features, tmp_path):
    """Only the coarseness of places is lost, and no more from frame to frame; whole places lose nothing."""
    video = Made(step=0, frames=6)
    found = measure(features, tmp_path, video, top=1, save_masks=True)
    masks = [np.array(Image.open(tmp_path / "masks" / "made" / f"{number:05d}.png")) for number in range(6)]
    for mask in masks[2:]:
        np.testing.assert_array_equal(mask, masks[1])
    assert found.metrics["j_mean"] > 80 and found.metrics["j_recall"] == 100


def test_objects_that_move_are_followed(features, tmp_path):
    """Better than masks that stay where they were."""
    video = Made(frames=8, step=5, numbers=(1,))
    found = measure(features, tmp_path, video)
    still = [region_similarity(video.masks[0] == 1, mask == 1) for mask in video.masks[1:-1]]
    assert found.metrics["j_mean"] > 100 * np.mean(still) + 20


def test_numbers_of_objects_may_have_gaps(features, tmp_path):
    measure(features, tmp_path, Made(numbers=(7, 200)), save_masks=True)
    assert set(np.unique(Image.open(tmp_path / "masks/made/00003.png"))) == {0, 7, 200}


def test_frames_without_annotation_are_not_measured(features, tmp_path):
    whole = measure(features, tmp_path, Made(frames=6), panels=1)
    part = measure(features, tmp_path, Made(frames=6, annotated={0, 2, 3}))
    assert part.tables["videos"][1][0][2] == 2 and whole.tables["videos"][1][0][2] == 4
    assert part.metrics != whole.metrics


def test_frames_are_resized_for_the_network_only(features, tmp_path):
    found = measure(features, tmp_path, Made(), size=32, save_masks=True)
    assert "4 × 5 places of frames of 32 × 40 pixels" in found.remarks[0]
    assert Image.open(tmp_path / "masks/made/00001.png").size == (80, 64)


def test_networks_that_cannot_be_dilated_keep_their_stride(tmp_path):
    subject = Features(Subject("random:test_vit"), FeatureConfig(), torch.device("cpu"))
    found = measure(subject, tmp_path, Made(frames=3))
    assert "places are 16 pixels apart" in found.remarks[1]


@pytest.mark.parametrize(("videos", "options", "message"), [
    ((), {}, "no videos"),
    ((Made(annotated={0}),), {}, "video made: none of its frames between"),
    ((Made(annotated={0, 4}),), {}, "between the first and the last"),
    ((Made(frames=2),), {}, "video made has 2 frames"),
    ((Made(numbers=()),), {}, "first frame shows no object"),
    ((Made(),), {"layer": "layer9"}, "no layer 'layer9'"),
    ((Made(),), {"top": 0}, "top is 0"),
    ((Made(),), {"context": -1}, "context is -1"),
    ((Made(),), {"size": 4}, "size is 4"),
    ((Made(),), {"temperature": 0.0}, "temperature is 0"),
])
def test_mistakes(features, tmp_path, videos, options, message):
    good = (Made("good"),) if videos else ()  # what is wrong with a later one is said before the first is followed
    with pytest.raises(UserError, match=message) as error:
        measure(features, tmp_path, *good, *videos, **options)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


def test_frames_of_different_sizes_are_refused(features, tmp_path):
    video = Made()
    video.images[2] = video.images[2][:-8]
    with pytest.raises(UserError, match=r"its frame 3 has 56 × 80 pixels .* first frame 64 × 80"):
        measure(features, tmp_path, video)


def test_masks_are_written_with_their_numbers(tmp_path):
    mask = np.arange(240, dtype=np.uint8).reshape(12, 20)
    write_mask(tmp_path / "new" / "mask.png", mask)
    with Image.open(tmp_path / "new" / "mask.png") as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.array(image), mask)
        assert image.getpalette()[:3] == [0, 0, 0]
        colours = np.array(image.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(colours[:20], axis=0)) == 20


def test_an_overlay_paints_objects_and_outlines_the_truth():
    image = np.full((20, 30, 3), 100, np.uint8)
    painted, truth = np.zeros((2, 20, 30), np.uint8)
    painted[5:10, 5:15], truth[5:10, 10:20] = 1, 1
    shown = overlay(image, painted, truth, width=30)
    assert shown.shape == (20, 30, 3)
    assert np.ptp(shown[15, 3].astype(int)) == 0 and np.ptp(shown[7, 7].astype(int)) > 50  # grey, coloured
    assert (shown[4, 10:19] == 255).all() and not (overlay(image, painted, width=30) == 255).all(2).any()


def test_the_videos_of_scenes_are_those_of_the_test_split():
    videos = LabelledScenes(size=32, videos=2, frames=3).videos()
    assert [video.name for video in videos] == ["scene_0000", "scene_0001"]
    for number, video in enumerate(videos):
        frames = list(film(generate(seed_of("test", number)), 32, 32, 3))
        assert len(video) == len(frames)
        for place, (image, objects) in enumerate(frames):
            np.testing.assert_array_equal(video.frame(place), image)
            np.testing.assert_array_equal(video.objects(place), objects)
    options = {"size": 32, "videos": 2, "frames": 3}
    whole = LabelledScenes(**options).fingerprint()
    assert all(LabelledScenes(**{**options, name: 33}).fingerprint() != whole for name in options)


def test_the_command_measures_davis(programs):
    patch = pytest.MonkeyPatch()
    patch.setattr(LAYOUTS.get("davis"), "frames", 3)
    export("davis", programs.folder / "set", {"train": 1, "val": 2}, (32, 48))
    patch.undo()
    done = programs.call("pretrain.evaluate", "--checkpoint=random:resnet10t", "--tasks=[video_propagation]",
                         "--video_propagation.save_masks=true", "--data.name=davis", "--data.root=set",
                         "--output=out", "--threads=1")
    assert done.code == 0, done.err
    assert "J&F [%]" in done.out
    (result,) = json.loads((programs.folder / "out/results.json").read_text())["measurements"]
    assert 0 < result["metrics"]["j_and_f"] < 100
    (masks, _), = result["files"]
    assert (programs.folder / "out" / masks / "val-room-001" / "00002.png").exists()
