"""A folder for each class, and ImageNet, which is one."""

from __future__ import annotations

from scenes.classes import SCENE_TYPES
from scenes.export._classified import ClassifiedLayout
from scenes.export.base import LAYOUTS, View
from scenes.scene import Scene


@LAYOUTS.register("folder")
class FolderLayout(ClassifiedLayout):
    """``train/CLASS/NUMBER.jpg`` and ``test/CLASS/NUMBER.jpg``."""

    def write(self, split: str, number: int, view: View, scene: Scene) -> None:
        name = f"{split}/{self.class_of(view)}/{number:06d}.jpg"
        self.keep(split, name, view)
        self.jpeg(name, view["image"])

    def finish(self) -> None:
        self.require_all_classes()


@LAYOUTS.register("imagenet")
class ImageNetLayout(FolderLayout):
    """Classes have names like WordNet's numbers."""

    splits = ("train", "val")
    classes = tuple(f"n{number:08d}" for number in range(1, len(SCENE_TYPES) + 1))

    def write(self, split: str, number: int, view: View, scene: Scene) -> None:
        name = self.class_of(view)
        file = f"{name}_{number}" if split == "train" else f"ILSVRC2012_val_{number + 1:08d}"
        self.keep(split, f"{split}/{name}/{file}.JPEG", view)
        self.jpeg(f"{split}/{name}/{file}.JPEG", view["image"])
