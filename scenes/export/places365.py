"""The layout of Places365-Standard."""

from __future__ import annotations

from scenes.classes import SCENE_TYPES
from scenes.export._classified import ClassifiedLayout
from scenes.export.base import LAYOUTS, View
from scenes.scene import Scene


@LAYOUTS.register("places365")
class Places365Layout(ClassifiedLayout):
    """Training images lie in folders of their classes, validation images in one."""

    splits = ("train", "val")
    classes = tuple(f"/{name[0]}/{name}" for name in SCENE_TYPES)

    def write(self, split: str, number: int, view: View, scene: Scene) -> None:
        train = split == "train"
        name = f"{self.class_of(view)}/{number + 1:08d}.jpg" if train else f"Places365_val_{number + 1:08d}.jpg"
        self.keep(split, name, view)
        self.jpeg(f"data_256{name}" if train else f"val_256/{name}", view["image"])

    def finish(self) -> None:
        self.text("categories_places365.txt", [f"{name} {number}" for number, name in enumerate(self.classes)])
        for split, file in (("train", "places365_train_standard.txt"), ("val", "places365_val.txt")):
            self.text(file, [f"{name} {label}" for name, label in self.rows[split]])
