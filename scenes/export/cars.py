"""The layout of Stanford Cars."""

from __future__ import annotations

import numpy as np

from scenes.export._classified import ClassifiedLayout
from scenes.export.base import LAYOUTS, View
from scenes.scene import Scene

_FIELDS = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")


@LAYOUTS.register("cars")
class CarsLayout(ClassifiedLayout):
    """Boxes are the whole image; the test images' classes lie beside the devkit, as they are handed out."""

    def write(self, split: str, number: int, view: View, scene: Scene) -> None:
        name = f"{number + 1:05d}.jpg"
        self.keep(split, name, view)
        self.box = (1, 1, *view["image"].shape[1::-1])
        self.jpeg(f"cars_{split}/{name}", view["image"])

    def finish(self) -> None:
        names = np.zeros((1, len(self.classes)), object)
        names[0] = self.classes
        self.matlab("devkit/cars_meta.mat", {"class_names": names})
        for split, rows in self.rows.items():
            annotations = np.zeros((1, len(rows)), [(field, object) for field in _FIELDS])
            for place, (name, label) in enumerate(rows):
                annotations[0, place] = (*self.box, label + 1, name)
            file = "devkit/cars_train_annos.mat" if split == "train" else "cars_test_annos_withlabels.mat"
            self.matlab(file, {"annotations": annotations})
