"""The layout of Taskonomy's tiny split."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scenes.classes import SCENE_TYPES
from scenes.export.base import LAYOUTS, Layout, View, table
from scenes.scene import Scene

NUMBERS = table({"wall": 1, "floor": 1, "ceiling": 1, "window": 1, "picture": 1, "cabinet": 1, "shelf": 1, "lamp": 1,
                 "box": 1, "chair": 3, "sofa": 4, "plant": 5, "bed": 6, "table": 7, "ball": 0})
"""Number of the 17 classes from 1; balls are uncertain."""
HEAT_TOP = 11041


@LAYOUTS.register("taskonomy")
class TaskonomyLayout(Layout):
    """A building for each split; balls have no depth."""

    splits = ("train", "val", "test")
    size = (96, 96)
    quantisation = "depth: 1/512 m steps; edges and keypoints: 1/11041 steps"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.buildings: list[str] = []

    def write(self, split: str, number: int, view: View, scene: Scene) -> None:
        building = f"house{split}"
        if building not in self.buildings:
            self.buildings.append(building)
        name = f"{building}/point_{number}_view_0_domain"
        known = NUMBERS[view["semseg"]] > 0
        self.image(f"rgb/{name}_rgb.png", view["image"])
        self.image(f"segment_semantic/{name}_segmentsemantic.png", NUMBERS[view["semseg"]])
        depth = np.where(known, np.minimum(np.rint(view["depth"] * 512), 65534), 65535)
        self.image(f"depth_zbuffer/{name}_depth_zbuffer.png", depth.astype(np.uint16))
        self.image(f"edge_texture/{name}_edge_texture.png", view["edge"].astype(np.uint16) * np.uint16(HEAT_TOP))
        self.image(f"keypoints2d/{name}_keypoints2d.png", np.rint(view["keypoints"] * HEAT_TOP).astype(np.uint16))
        shares = np.full(len(SCENE_TYPES), 0.02, np.float32)
        shares[int(view["scene"])] = 1 - 0.02 * (len(SCENE_TYPES) - 1)
        self.numbers(f"class_scene/{name}_class_scene.npy", shares)

    def finish(self) -> None:
        rows = [",".join((name, *("1" if name == f"house{split}" else "0" for split in self.splits)))
                for name in self.buildings]
        self.text("train_val_test_tiny.csv", ["id,train,val,test", *rows])
