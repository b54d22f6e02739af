"""The layout of the Oxford-IIIT Pet Dataset."""

from __future__ import annotations

from scenes.export._classified import ClassifiedLayout
from scenes.export.base import LAYOUTS, View
from scenes.scene import Scene


@LAYOUTS.register("pets")
class PetsLayout(ClassifiedLayout):
    """``images/BREED_NUMBER.jpg``; classes are numbered from 1. Split ``train`` is the list ``trainval``."""

    def write(self, split: str, number: int, view: View, scene: Scene) -> None:
        name = f"{self.class_of(view)}_{number + 100000 * self.splits.index(split)}"
        self.keep(split, name, view)
        self.jpeg(f"images/{name}.jpg", view["image"])

    def finish(self) -> None:
        self.require_all_classes()
        for split, rows in self.rows.items():
            lines = [f"{name} {label + 1} {1 + label % 2} {1 + label // 2}" for name, label in rows]
            self.text(f"annotations/{'trainval' if split == 'train' else split}.txt", lines)
