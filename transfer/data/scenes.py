"""The built-in data set: procedural indoor scenes with exact labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.errors import UserError
from transfer.data.base import DATASETS, DataSet, Label, Sample, Split

if TYPE_CHECKING:
    from scenes import Scenes


@DATASETS.register("scenes")
class ScenesData(DataSet):
    """Rooms rendered on first use and cached; nothing to download.

    Args:
        train_count: number of labelled training scenes.
        val_count: number of validation scenes.
        test_count: number of test scenes.
        size: side of the images, pixels.
        root: cache folder; by default the one of the built-in scenes.
    """

    holds = ("semseg, depth, normals, edge, saliency, parts, instance_center, keypoints, inverse_depth, scene, "
             "attributes")

    def __init__(
        self,
        train_count: int = 128,
        val_count: int = 256,
        test_count: int = 256,
        size: int = 128,
        root: str | None = None,
    ) -> None:
        self.counts = {"train": train_count, "val": val_count, "test": test_count}
        for split, count in self.counts.items():
            if count < 1:
                raise UserError(f"scenes: {split}_count is {count}: it must be at least 1")
        if size < 16:
            raise UserError(f"scenes: size {size} is too small: use 16 pixels or more")
        self.size, self.root = size, root

    @property
    def labels(self) -> dict[str, Label]:
        from scenes import ATTRIBUTES, PART_CLASSES, SCENE_TYPES, SEMSEG_CLASSES

        return {
            "semseg": Label("semseg", SEMSEG_CLASSES),
            "depth": Label("depth"),
            "normals": Label("normals"),
            "edge": Label("edge"),
            "saliency": Label("saliency"),
            "parts": Label("parts", PART_CLASSES),
            "instance_center": Label("instance_center"),
            "keypoints": Label("keypoints"),
            "inverse_depth": Label("inverse_depth"),
            "scene": Label("scene", SCENE_TYPES),
            "attributes": Label("attributes", ATTRIBUTES),
        }

    def load(self, split: str) -> Split:
        from scenes import Scenes

        source = Scenes(split=split, count=self.counts[split], size=self.size, labels=True, root=self.root)
        return SceneSplit(source, split, tuple(self.tasks))

    def fingerprint(self) -> str:
        from scenes import RENDERER_VERSION

        counts = "-".join(str(self.counts[split]) for split in self.splits)
        return f"scenes-v{RENDERER_VERSION}-{self.size}-{counts}"


class SceneSplit(Split):
    """Samples of one split of the scenes."""

    def __init__(self, source: Scenes, name: str, tasks: tuple[str, ...]) -> None:
        self.source, self.name, self.tasks = source, name, tasks

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        arrays = self.source.sample(index)
        targets = {task: 1 / arrays["depth"] if task == "inverse_depth" else arrays[task] for task in self.tasks}
        return {"image": arrays["image"], "id": f"{self.name}/{index:06d}", "targets": targets}
