"""The layout of NYUD-v2."""

from __future__ import annotations

import numpy as np

from scenes.export.base import LAYOUTS, Layout, View, table
from scenes.scene import Scene

NUMBERS = table({"wall": 1, "floor": 2, "cabinet": 3, "bed": 4, "chair": 5, "sofa": 6, "table": 7, "window": 9,
                 "shelf": 10, "picture": 11, "ceiling": 22, "box": 29, "lamp": 35, "plant": 40, "ball": 0})
"""Number of the 40 classes from 1; balls have no label."""


@LAYOUTS.register("nyud")
class NyudLayout(Layout):
    """``images``, ``segmentation``, ``depth``, ``normals``, ``edge``, ``gt_sets``; only the pictures lose."""

    def __init__(self, folder) -> None:
        super().__init__(folder)
        self.names: dict[str, list[str]] = {split: [] for split in self.splits}

    def write(self, split: str, number: int, view: View, scene: Scene) -> None:
        name = f"{1 + number + (50000 if split == 'val' else 0):05d}"
        self.names[split].append(name)
        self.jpeg(f"images/{name}.jpg", view["image"])
        self.image(f"segmentation/{name}.png", NUMBERS[view["semseg"]])
        self.numbers(f"depth/{name}.npy", view["depth"])
        self.numbers(f"normals/{name}.npy", view["normals"])
        self.numbers(f"edge/{name}.npy", view["edge"].astype(np.float32))

    def finish(self) -> None:
        for split, names in self.names.items():
            self.text(f"gt_sets/{split}.txt", names)
