"""The layout of Cityscapes as npy files."""

from __future__ import annotations

import numpy as np

from scenes.export._numbered import NumberedLayout
from scenes.export.base import LAYOUTS, View, table
from scenes.scene import Scene

NUMBERS = table({"wall": 2, "floor": 0, "ceiling": 10, "window": 3, "picture": 7, "table": 13, "chair": 11, "sofa": 14,
                 "bed": 15, "cabinet": -1, "shelf": 4, "lamp": 6, "plant": 8, "box": 18, "ball": 12}, np.int8)
"""Number of the 19 classes; cabinets have no label."""


@LAYOUTS.register("cityscapes_npy")
class CityscapesNpyLayout(NumberedLayout):
    """Images, 19 classes and inverse depth (1/m)."""

    size = (64, 128)

    def write(self, split: str, number: int, view: View, scene: Scene) -> None:
        self.picture(split, number, view)
        self.save(split, number, "label_19", NUMBERS[view["semseg"]].astype(np.float32))
        self.save(split, number, "depth", (1 / view["depth"])[..., None])
