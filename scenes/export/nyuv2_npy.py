"""The layout of NYUv2 as npy files."""

from __future__ import annotations

import numpy as np

from scenes.export._numbered import NumberedLayout
from scenes.export.base import LAYOUTS, View, table
from scenes.scene import Scene

NUMBERS = table({"bed": 0, "ceiling": 2, "chair": 3, "floor": 4, "cabinet": 5, "shelf": 5, "lamp": 6, "box": 6,
                 "plant": 6, "picture": 7, "sofa": 8, "table": 9, "wall": 11, "window": 12, "ball": -1}, np.int8)
"""Number of the 13 classes; balls have no label."""


@LAYOUTS.register("nyuv2_npy")
class Nyuv2NpyLayout(NumberedLayout):
    """Images, 13 classes, depth in metres and normals."""

    size = (96, 128)

    def write(self, split: str, number: int, view: View, scene: Scene) -> None:
        self.picture(split, number, view)
        self.save(split, number, "label", NUMBERS[view["semseg"]].astype(np.float32))
        self.save(split, number, "depth", view["depth"][..., None])
        self.save(split, number, "normal", view["normals"])
