"""The built-in scenes: every kind of label, and nothing to download."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pretrain.evaluation.labelled import LABELLED, Labelled, LabelledImages, Video
from scenes import ATTRIBUTES, SCENE_TYPES, SEMSEG_CLASSES, Scenes
from scenes.rooms import RENDERER_VERSION
from scenes.video import VIDEO_VERSION, SceneVideo


@LABELLED.register("scenes")
class LabelledScenes(Labelled):
    """Built-in indoor scenes: the class of an image is the type of its room; all labels are exact.

    Args:
        train: scenes that classifiers learn from.
        val: scenes of the validation split.
        test: scenes that are measured.
        size: height and width, in pixels.
        videos: scenes of the test split that a moving camera looks at.
        frames: of each video.
    """

    splits = ("train", "val", "test")
    holds = "class, attributes, mask, video"
    resize = crop = None

    def __init__(self, train: int = 512, val: int = 256, test: int = 256, size: int = 128, videos: int = 8,
                 frames: int = 24) -> None:
        self.counts = {"train": train, "val": val, "test": test}
        self.size, self._videos, self._frames = size, videos, frames

    @property
    def names(self) -> Mapping[str, tuple[str, ...]]:
        return {"class": SCENE_TYPES, "attributes": ATTRIBUTES, "mask": SEMSEG_CLASSES, "video": ()}

    def fingerprint(self) -> str:
        return "-".join(self.fingerprint_for(kind) for kind in ("class", "video"))

    def fingerprint_for(self, kind: str) -> str:
        if kind == "video":
            return f"scenes-v{RENDERER_VERSION}-{self.size}-{self.test}-{self._videos}-{self._frames}-v{VIDEO_VERSION}"
        counts = "-".join(f"{split}{self.counts[split]}" for split in (self.learn, self.test))
        return f"scenes-v{RENDERER_VERSION}-{self.size}-{counts}"

    def load(self, split: str) -> LabelledImages:
        return _SceneImages(Scenes(split, self.counts[split], self.size))

    def videos(self) -> Sequence[Video]:
        return [_SceneVideo(SceneVideo(self.test, number, self._frames, self.size)) for number in range(self._videos)]


class _SceneVideo(Video):
    """The video of one scene."""

    def __init__(self, video: SceneVideo) -> None:
        self.video, self.name = video, f"scene_{video.number:04d}"

    def __len__(self) -> int:
        return len(self.video)

    def frame(self, number: int) -> np.ndarray:
        return self.video.frame(number)

    def objects(self, number: int) -> np.ndarray:
        return self.video.objects(number)


class _SceneImages(LabelledImages):
    """A split of scenes."""

    def __init__(self, scenes: Scenes) -> None:
        self.scenes = scenes

    def __len__(self) -> int:
        return len(self.scenes)

    def image(self, number: int) -> np.ndarray:
        return np.array(self.scenes.images[number])

    def name(self, number: int) -> str:
        return f"{self.scenes.split} scene {number}"

    def fingerprint(self) -> str:
        return self.scenes.fingerprint()

    def classes(self) -> np.ndarray:
        return self.scenes.scene_types.astype(np.int64)

    def attributes(self) -> np.ndarray:
        return np.stack([self.scenes.sample(i)["attributes"] for i in range(len(self))]).astype(np.int8)

    def mask(self, number: int) -> np.ndarray:
        return self.scenes.sample(number)["semseg"]
