"""The layout of SUN397."""

from __future__ import annotations

from scenes.classes import SCENE_TYPES
from scenes.export._classified import ClassifiedLayout
from scenes.export.base import LAYOUTS, View
from scenes.scene import Scene


@LAYOUTS.register("sun397")
class Sun397Layout(ClassifiedLayout):
    """Two partitions: in the second, training and test images are exchanged."""

    classes = tuple(f"/{name[0]}/{name.replace('_', '/', 1)}" for name in SCENE_TYPES)

    def write(self, split: str, number: int, view: View, scene: Scene) -> None:
        name = f"{self.class_of(view)}/sun_{split}{number:06d}.jpg"
        self.keep(split, name, view)
        self.jpeg(f"SUN397{name}", view["image"])

    def finish(self) -> None:
        for folder in ("SUN397", "Partitions"):  # it is in both archives
            self.text(f"{folder}/ClassName.txt", list(self.classes))
        for partition, (train, test) in enumerate((("train", "test"), ("test", "train")), 1):
            for file, split in (("Training", train), ("Testing", test)):
                self.text(f"Partitions/{file}_{partition:02d}.txt", sorted(name for name, _ in self.rows[split]))
